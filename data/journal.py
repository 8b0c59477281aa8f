"""The log of commands: what was run when, how long it took and how it ended, in ``$WATCHNEXT_HOME/watchnext.log``."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from rich.console import Console

from data.errors import WatchNextError
from data.home import Home

OURS = ("watchnext", "data", "models", "training")
SHARED: tuple[structlog.types.Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper("iso", utc=True),
    structlog.processors.format_exc_info,
)


@contextmanager
def logged(command: str, home: Home, console: Console, **facts: Any) -> Iterator[dict[str, Any]]:
    """Log a command's start and end; what the block puts into the yielded mapping is logged at the end."""
    results: dict[str, Any] = {}
    with _journal(home, console):
        log, started = structlog.get_logger("watchnext").bind(command=command), time.monotonic()
        log.debug("started", **facts)
        try:
            yield results
        except BaseException as error:
            log.debug("stopped", error=f"{type(error).__name__}: {error}", seconds=round(time.monotonic() - started, 1))
            raise
        log.debug("finished", **results, seconds=round(time.monotonic() - started, 1))


@contextmanager
def _journal(home: Home, console: Console) -> Iterator[None]:
    """Every event as a JSON line into ``watchnext.log``; warnings and worse on the console too, above any progress bar.

    The folders log through the standard library or structlog; both come out the same. At the end all is as it was.
    """
    path, root = home.root / "watchnext.log", logging.getLogger()
    try:
        home.root.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise WatchNextError(f"cannot write {path}: {error.strerror}") from None
    file.setFormatter(_formatter(structlog.processors.JSONRenderer()))
    screen = _Screen(console)
    screen.setFormatter(_formatter(structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)))
    levels = {name: logging.getLogger(name).level for name in OURS}
    handlers, config = root.handlers, structlog.get_config()
    root.handlers = [file, screen]
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        root.handlers = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        structlog.configure(**config)
        file.close()


def _formatter(renderer: structlog.types.Processor) -> logging.Formatter:
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    return structlog.stdlib.ProcessorFormatter(processors=processors, foreign_pre_chain=SHARED)


class _Screen(logging.Handler):
    """Warnings and worse as lines of a rich console."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record), style="yellow", markup=False, highlight=False, soft_wrap=True)
