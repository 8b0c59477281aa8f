"""Kill -9 of retrain at random steps: the champion always loads, and the night ends as it does without kills.

    python benchmarks/kill_retrain.py [--kills 200] [--seed 1]

A small log (tests/night_log.py), a champion, two new days. A night is run once in peace. Then nights are killed, each in a
process of its own, at a random one of the steps at which the interpreter opens, renames, removes or lists a file; what was
killed is run again and killed again, until a run comes through. Then registry, decisions, judged days and nights must be
those of the night in peace, to the byte where they hold no clock, and the home is set back. After every kill the champion
is opened with every checksum. Prints a line, writes $WATCHNEXT_HOME/benchmarks/kill_retrain.json, and exits with 1 where
anything differs. (The SavedModel for TensorFlow Serving is left out: it takes a second to write.)
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for tests.night_log
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")

import structlog  # noqa: E402

from data.home import Home  # noqa: E402
from tests.night_log import NOW, QUIET, add_days, night_config  # noqa: E402
from watchnext import quiet_tensorflow  # noqa: E402

CONFIG = night_config(gate={"latency_ratio": 1e9})
NUMBERED = ("assets.extra/scorer.onnx", "assets.extra/scorer.videos.onnx")
"""Their nodes have numbers that count what TensorFlow built before in the process: the same graphs, other bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_nights(Path(folder), options.kills, options.seed)
    result |= {"seed": options.seed, "seconds": round(time.monotonic() - started)}
    home = Home.from_environment()
    home.benchmarks.mkdir(parents=True, exist_ok=True)
    (home.benchmarks / "kill_retrain.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(1 if result["failures"] else 0)


def kill_nights(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill that many nights. ``steps`` is what a night takes, ``at`` where the kills fell in tenths of it, ``failures``
    what was not as it should be."""
    quiet_tensorflow()
    import training.retrain
    import training.run  # noqa: F401

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    begun, quiet, home = (Home(folder / name) for name in ("begun", "quiet", "home"))
    forked(lambda: begin(begun))
    shutil.copytree(begun.root, quiet.root)
    steps = int(forked(lambda: run_night(quiet, 0)))
    expected = forked(lambda: state_of(quiet))
    rng, failures, at, ended = random.Random(seed), [], [0] * 10, 0
    shutil.copytree(begun.root, home.root)
    while sum(at) < kills:
        step = rng.randint(1, steps)
        if not was_killed(lambda step=step: run_night(home, step)):
            ended += 1
            if forked(lambda: state_of(home)) != expected:
                failures.append(f"after kill {sum(at)} the night ended otherwise: {differences(home, expected)}")
            shutil.rmtree(home.root)
            shutil.copytree(begun.root, home.root)
            continue
        at[(step - 1) * 10 // steps] += 1
        if forked(lambda: champion_loads(home)) != "yes":
            failures.append(f"kill {sum(at)} at step {step}: the champion does not load")
    forked(lambda: run_night(home, 0))
    if forked(lambda: state_of(home)) != expected:
        failures.append(f"the last night ended otherwise: {differences(home, expected)}")
    return {"kills": sum(at), "steps": steps, "at": at, "nights_ended": ended + 1, "failures": failures}


def begin(home: Home) -> str:
    """A champion trained on days 0 to 3, and two days more in the log."""
    from training.run import train

    without_saved_model()
    add_days(home, CONFIG, range(4))
    train(CONFIG, home, None, None, False, QUIET)
    add_days(home, CONFIG, [4, 5])
    return ""


def run_night(home: Home, die_at: int) -> str:
    """One night, killed at a step (0: not at all). Returns how many steps it took."""
    from training.retrain import retrain

    without_saved_model()
    taken = [0]

    def step(event: str, _arguments: Any) -> None:
        if event == "open" or event.startswith(("os.", "shutil.", "sqlite3.")):
            taken[0] += 1
            if taken[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    retrain(CONFIG, home, False, NOW, QUIET)
    return str(taken[0])


def champion_loads(home: Home) -> str:
    from models.registry import Registry

    registry = Registry(home)
    return "yes" if registry.open_serving(CONFIG.name).version == registry.champion(CONFIG.name) else "no"


def state_of(home: Home) -> str:
    """All that a night leaves behind, but for clocks, as text."""
    from models.registry import Registry
    from training.nights import Nights
    from training.quarantine import Quarantine

    registry = Registry(home)
    pointer = registry.pointer(CONFIG.name)
    assert pointer is not None
    bundles = {version: registry.open(CONFIG.name, version).manifest for version in registry.versions(CONFIG.name)}
    files = {
        version: {name: facts.sha256 for name, facts in manifest.files.items() if name not in NUMBERED}
        for version, manifest in bundles.items()
    }
    decisions = {}
    for path in sorted((home.registry(CONFIG.name) / "decisions").glob("*.json")):
        made = json.loads(path.read_text())
        decisions[path.name] = {**made, "checks": [c for c in made["checks"] if c["kind"] not in ("latency", "size")]}
    hidden = [path.name for path in home.registry(CONFIG.name).rglob(".tmp*")]
    kept = [path.name for path in home.runs(CONFIG.name).iterdir()]
    nights = [(str(n.day), n.challenger, n.promoted) for n in Nights(home, CONFIG).all()]
    days = {
        str(d): (j.status, j.digest, {k: list(f) for k, f in j.figures.items()})
        for d, j in Quarantine(home, CONFIG.name).days().items()
    }
    champion = [pointer.version, pointer.previous]
    found = {"champion": champion, "files": files, "decisions": decisions, "nights": nights, "days": days}
    return json.dumps({**found, "hidden": hidden, "runs": kept}, sort_keys=True)


def differences(home: Home, expected: str) -> str:
    """Where :func:`state_of` differs."""
    return "; ".join(_differences(json.loads(forked(lambda: state_of(home))), json.loads(expected), ""))


def _differences(found: Any, wanted: Any, where: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        for key in wanted:
            yield from _differences(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for place, pair in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(*pair, f"{where}[{place}]")
    elif found != wanted:
        yield f"{where}: {str(found)[:200]}, expected {str(wanted)[:200]}"


def without_saved_model() -> None:
    import training.publish

    training.publish.export_saved_model = lambda _, folder: (folder / "saved_model.pb").touch()


def forked(work: Callable[[], str]) -> str:
    """What ``work`` returns in a process of its own: neither SQLite nor TensorFlow may be carried over a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            text = work()
            with os.fdopen(writing, "w") as pipe:
                pipe.write(text)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("a step that nobody kills has failed; its traceback is above")
    return text


def was_killed(work: Callable[[], str]) -> bool:
    """Whether the process that does ``work`` was killed; it may also come through, but not fail."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError("a night failed after a kill; its traceback is above")
    return status == signal.SIGKILL


if __name__ == "__main__":
    main()
