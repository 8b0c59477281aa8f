"""Keep retraining by a cron line: each run is the one-shot command in a process of its own."""

import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger
from rich.console import Console

from data.errors import ConfigError

GRACE_SECONDS = 30
"""How long a running retrain may take to end when it is told to; then it is killed. It goes on from there next time."""
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def cron_trigger(line: str, timezone: str) -> CronTrigger:
    """The trigger of a cron line (minute hour day month weekday), in the configuration's timezone.

    APScheduler counts weekdays from Monday, cron from Sunday: numbers are read as cron's.

    Raises:
        ConfigError: it is none.
    """
    fields = line.split()
    if len(fields) != 5:
        raise ConfigError(f'expected a cron line of five fields such as "30 3 * * *", got {line!r}')
    weekdays, slash, step = fields[4].partition("/")
    weekdays = re.sub(r"[0-7]", lambda found: _DAYS[int(found[0])], weekdays)
    try:
        return CronTrigger.from_crontab(" ".join([*fields[:4], weekdays + slash + step]), timezone=timezone)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{line!r} is no cron line: {error}") from None


def keep_running(command: Sequence[str], line: str, timezone: str, console: Console) -> None:
    """Run ``command`` at every time of the cron line until SIGTERM or SIGINT, one at a time.

    A run that is due while one is at work is left out. What the command prints is passed on.
    """
    runner = Runner(command, console)
    scheduler = BlockingScheduler(timezone=timezone)
    job = scheduler.add_job(
        runner.run, cron_trigger(line, timezone), max_instances=1, coalesce=True, misfire_grace_time=None, name="retrain"
    )
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGINT)}
    console.print(f"Next run at {job.trigger.get_next_fire_time(None, datetime.now(UTC))}", highlight=False)
    try:
        scheduler.start()
    except SystemExit:
        console.print("Told to stop")
    finally:
        runner.stop()
        scheduler.shutdown(wait=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


class Runner:
    """Runs the command; :meth:`stop`, from any thread, ends the run that is at work and lets no other begin."""

    def __init__(self, command: Sequence[str], console: Console) -> None:
        self._command, self._console = list(command), console
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> int | None:
        """The exit code of one run; None after :meth:`stop`."""
        with self._lock:
            if self._stopped:
                return None
            self._process = subprocess.Popen(self._command)
        code = self._process.wait()
        self._console.print(f"`{' '.join(self._command[-3:])}` ended with {code}", highlight=False)
        return code

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
