"""Settings of the serving process, read from the environment (``WATCHNEXT_<NAME>``). docs/settings.md lists them."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from data.home import Home

KIB = 1024
MOST_WORKERS = 4
"""Unless more are asked for: each takes memory of its own, and on more cores than two nothing was measured."""


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """How to serve. What to serve (objectives, weights, quotas of the generators) travels in the bundle."""

    model_config = SettingsConfigDict(env_prefix="WATCHNEXT_", env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(Path("var"), description="Folder of everything produced: logs, registry, database.")
    name: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=64,
        description="Name of the configuration whose champion is served; may be left out while the registry holds one name.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes that answer, each for its share of the users; unset: one a core, at most 4.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Requests that a process ranks at the same time; unset: 1, and where there is one process 2.",
    )
    bfloat16: bool = Field(
        False,
        description="Score with products in bfloat16, where the processor has them and a bundle's order bears it; takes "
        "requirements/bfloat16.txt.",
    )
    body_limit: int = Field(4096 * KIB, ge=KIB, description="Largest request body in bytes; a larger one is answered 413.")
    deadline_ms: float = Field(2000.0, gt=0, description="A request not answered after this many milliseconds gets 503.")
    queue: int = Field(
        64, ge=0, le=10_000, description="Requests that may wait for one of a process's threads; one more is answered 503."
    )
    rate_limit: float = Field(
        1000.0, ge=0, le=1e6, description="Requests a second of one key, or without keys of one address; 0: no limit."
    )
    rate_burst: float = Field(2000.0, ge=1, le=1e6, description="Requests that a caller may have saved up.")
    allow_open: bool = Field(False, description="Start without any API key on an address that others reach.")
    open_metrics: bool = Field(False, description="Answer /metrics without a key.")
    poll_seconds: float = Field(
        1.0, ge=0.01, le=60, description="How often keys, champion, shadow and canary are looked up in the database."
    )
    canary_minimum: int = Field(
        200, ge=1, description="Requests, and items seen, of canary and champion each before the canary is judged by them."
    )
    canary_errors: float = Field(
        0.02, ge=0, le=1, description="Share of failed requests a canary may have above the champion's."
    )
    canary_latency: float = Field(2.0, ge=1, description="Times the champion's 95th percentile of latency it may take.")
    canary_unknown: float = Field(
        0.1, ge=0, le=1, description="Share of unknown users or videos a canary may have above the champion's."
    )
    canary_nulls: float = Field(
        0.1, ge=0, le=1, description="Share of null context features a canary may have above the champion's."
    )
    canary_low: float = Field(
        0.67, gt=0, le=1, description="Least ratio of a canary's to the champion's rates, and predicted over actual."
    )
    canary_high: float = Field(1.5, ge=1, description="Largest such ratio.")
    blocked_file: Path | None = Field(
        None, description="File of video ids, one a line, that /v1/recommend never returns. Read once, at start-up."
    )
    replay_clock: bool = Field(
        False, description="The time is the newest timestamp that a request or event carried: to replay logs, never in use."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line written.")

    @property
    def processes(self) -> int:
        """How many workers there are to be. A replay's clock is one process's."""
        if self.workers is not None:
            return self.workers
        return 1 if self.replay_clock else min(MOST_WORKERS, cores())

    def ranking_threads(self, together: bool) -> int:
        """Of this process; ``together``: it is one of several workers."""
        return self.threads or (1 if together else 2)

    @property
    def bfloat16_calls(self) -> int:
        """How many calls score in bfloat16 side by side; 0: none, it is float32."""
        return self.ranking_threads(self.processes > 1) if self.bfloat16 else 0

    def home_folder(self) -> Home:
        return Home(self.home.resolve())
