"""Metrics for Prometheus and structured logs."""

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig  # the supervisor has no use for the framework

SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CORRELATIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
UNTRACED: "TelemetryConfig" = {"tracing": False, "metrics": False, "logs": False}
"""The framework's own telemetry, which would look for OpenTelemetry at every request; this service's is here."""
COUNTS = (0, 1, 10, 20, 50, 100, 200, 500, 1000, 2000)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, of no use here


class Metrics:
    """Everything that is counted, in a registry of its own, so that one process may hold several applications.

    Several worker processes share their counts through files in ``PROMETHEUS_MULTIPROC_DIR``. prometheus_client reads
    that variable when it is first imported; set later, counts would silently stay in each process.

    Raises:
        RuntimeError: the variable was set too late.
    """

    def __init__(self) -> None:
        self.shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if self.shared and values.ValueClass is values.MutexValue:
            raise RuntimeError("PROMETHEUS_MULTIPROC_DIR must be set before prometheus_client is imported")
        self.registry = to = CollectorRegistry()
        self.requests = Counter("watchnext_requests", "Requests answered", ["route", "status"], registry=to)
        self.request_seconds = Histogram(
            "watchnext_request_seconds", "From the request's arrival to its answer", ["route"], buckets=SECONDS, registry=to
        )
        self.refused = Counter("watchnext_refused", "Requests refused unread, by status", ["status"], registry=to)
        self.stage_seconds = Histogram(
            "watchnext_stage_seconds", "Time of a stage of the pipeline", ["stage"], buckets=SECONDS, registry=to
        )
        self._stages = cache(self.stage_seconds.labels)
        self.of_route = cache(self._of_route)
        self._answered = cache(
            lambda route, status: (self.requests.labels(route, status), self.request_seconds.labels(route))
        )
        self.candidates = Histogram(
            "watchnext_candidates", "Candidates scored in a request", ["route"], buckets=COUNTS, registry=to
        )
        self.empty_slates = Counter("watchnext_empty_slates", "Answers without an item", ["route"], registry=to)
        self.filtered = Counter("watchnext_filtered", "Candidates left out before scoring", ["route"], registry=to)
        self.generated = Counter("watchnext_generated", "Candidates brought by a generator", ["generator"], registry=to)
        self.generator_seconds = Histogram(
            "watchnext_generator_seconds", "Time of a generator", ["generator"], buckets=SECONDS, registry=to
        )
        self.generators_left_out = Counter(
            "watchnext_generators_left_out", "Generators left out, by reason", ["generator", "reason"], registry=to
        )
        self.unknown_users = Counter("watchnext_unknown_users", "Requests of users not in the bundle", registry=to)
        self.unknown_videos = Counter("watchnext_unknown_videos", "Candidates not in the bundle", registry=to)
        self.null_context = Counter("watchnext_null_context", "Requests without a context feature", ["feature"], registry=to)
        self.not_finite = Counter("watchnext_not_finite", "Candidates whose score is not finite", registry=to)
        self.explored = Counter("watchnext_explored_slots", "Places of slates filled by lot", registry=to)
        self.profiles_left_out = Counter(
            "watchnext_profiles_left_out", "Requests ranked without the events since the bundle", registry=to
        )
        self.stale_counts = Counter(
            "watchnext_stale_counts", "Requests ranked with counts of videos from before this morning", registry=to
        )
        self.events = Counter("watchnext_events", "Events by what became of them", ["status"], registry=to)
        self.feedback = Gauge(
            "watchnext_feedback",
            "Counts of slates and events, over restarts",
            ["count"],
            multiprocess_mode="mostrecent",
            registry=to,
        )
        self.served_log_failures = Counter(
            "watchnext_served_log_failures", "Slates that a defect kept from the log", registry=to
        )
        self.model_version = Gauge(
            "watchnext_model_version", "Version that answers", multiprocess_mode="mostrecent", registry=to
        )
        self.swaps = Counter("watchnext_swaps", "Champions put in place of others", registry=to)
        self.bundles_refused = Counter("watchnext_bundles_refused", "Attempts to serve a champion that failed", registry=to)
        self.refused_version = Gauge(
            "watchnext_refused_version", "Champion that is refused; 0: none", multiprocess_mode="mostrecent", registry=to
        )
        self.canary_version = Gauge(
            "watchnext_canary_version",
            "Version that serves some users; 0: none",
            multiprocess_mode="mostrecent",
            registry=to,
        )
        self.canaries_withdrawn = Counter(
            "watchnext_canaries_withdrawn", "Canaries withdrawn, by the band that they left", ["band"], registry=to
        )
        self.shadowed = Counter(
            "watchnext_shadow_slates", "Slates for the shadow: scored, left_out, failed", ["outcome"], registry=to
        )
        self.shadow_seconds = Histogram(
            "watchnext_shadow_seconds", "Time of the shadow to score a slate", buckets=SECONDS, registry=to
        )
        self.shadow_correlation = Histogram(
            "watchnext_shadow_rank_correlation", "Of the shadow's and the served scores", buckets=CORRELATIONS, registry=to
        )
        self.shadow_overlap = Histogram(
            "watchnext_shadow_top_overlap",
            "Share of the served first ten that are the shadow's",
            buckets=SHARES,
            registry=to,
        )
        self.shadow_ratio = Gauge(
            "watchnext_shadow_prediction_ratio",
            "The shadow's mean prediction over the served one's",
            ["objective"],
            multiprocess_mode="mostrecent",
            registry=to,
        )
        self.load_seconds = Gauge(
            "watchnext_load_seconds", "Time to load and warm the bundle", multiprocess_mode="mostrecent", registry=to
        )

    def _of_route(self, route: str) -> "OfRoute":
        return OfRoute(self.candidates.labels(route), self.filtered.labels(route), self.empty_slates.labels(route))

    def stage(self, name: str) -> "_Stage":
        """Times a block."""
        return _Stage(self._stages(name))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was."""
        count, times = self._answered(route, str(status))
        count.inc()
        times.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format, of all worker processes."""
        if not self.shared:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


class _Stage:
    __slots__ = ("_started", "_times")

    def __init__(self, times: Histogram) -> None:
        self._times = times

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._times.observe(perf_counter() - self._started)


class OfRoute(NamedTuple):
    """What is counted of a route."""

    candidates: Histogram
    filtered: Counter
    empty_slates: Counter


def configure_logs(level: str) -> None:
    """One JSON object a line on stdout: event, level, timestamp (ISO, UTC), and what is bound (``request_id``).

    Lines of the standard library's loggers (``models.registry``, uvicorn) come the same way.
    """
    trace = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals would repeat requests into the log
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(trace),
            structlog.processors.JSONRenderer(_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )
    root, least = logging.getLogger(), logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(min(root.level, least))  # others in this process may listen for more
    for handler in [handler for handler in root.handlers if isinstance(handler, _ToStructlog)]:
        root.removeHandler(handler)
    root.addHandler(_ToStructlog(least))


def _json(line: Any, default: Callable[[Any], Any]) -> str:
    """What orjson can't write (numbers of more than 64 bits) the standard library can."""
    try:
        return orjson.dumps(line, default, orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(line, default=default)


class _Lines:
    """Writes to what is the standard output by then."""

    def __init__(self, *_: Any) -> None:
        pass

    def msg(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    debug = info = warning = error = critical = exception = fatal = log = msg


class _ToStructlog(logging.Handler):
    _usual = frozenset(vars(logging.makeLogRecord({}))) | {"message", "color_message"}

    def emit(self, record: logging.LogRecord) -> None:
        extra = {key: value for key, value in vars(record).items() if key not in self._usual}
        extra |= {"logger": record.name, "exc_info": record.exc_info}
        structlog.get_logger().log(record.levelno, record.getMessage(), **extra)
