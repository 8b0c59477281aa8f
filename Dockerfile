# Two images from one file. `serve` (the default, last) has no TensorFlow; `train` has everything but the tests.
#   docker build -t watchnext .                       docker build -t watchnext-train --target train .

FROM python:3.11-slim AS python
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# Dependencies first: these layers change only when a requirements file does.
# --build-arg REQUIREMENTS=bfloat16: for WATCHNEXT_BFLOAT16
FROM python AS serve-dependencies
ARG REQUIREMENTS=serve
COPY requirements/${REQUIREMENTS}.txt requirements/serve.txt
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r requirements/serve.txt

FROM python AS train-dependencies
COPY requirements/train.txt requirements/train.txt
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r requirements/train.txt

FROM python AS runtime
RUN useradd --uid 10001 --create-home watchnext && install -d -o watchnext /home/watchnext/var
ENV PATH=/venv/bin:$PATH WATCHNEXT_HOME=/home/watchnext/var
VOLUME /home/watchnext/var
ENTRYPOINT ["python", "/app/watchnext.py"]

FROM runtime AS train
COPY --from=train-dependencies /venv /venv
COPY data data
COPY models models
COPY training training
COPY watchnext.py .
USER watchnext
CMD ["--help"]

FROM runtime AS serve
COPY --from=serve-dependencies /venv /venv
COPY data data
COPY models models
COPY service service
COPY watchnext.py .
USER watchnext
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
