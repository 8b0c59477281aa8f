"""What every test shares: a home of its own, and few threads."""

import os
from pathlib import Path

import pytest

# Before anything imports TensorFlow or a BLAS: tests run beside each other on small machines. TensorFlow runs two
# operations side by side, each in one thread, as training does on two cores (models/threads.py).
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``$WATCHNEXT_HOME`` for the test: nothing is written into the working directory."""
    folder = tmp_path / "home"
    monkeypatch.setenv("WATCHNEXT_HOME", str(folder))
    monkeypatch.delenv("WATCHNEXT_DATABASE_URL", raising=False)
    return folder
