"""Rolling back, pinning, trials, and the collector: what must stay stays, whoever is killed when."""

import os
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

import watchnext
from data.errors import BundleError, WatchNextError
from data.home import Home
from models.collect import collect, live_from, needed
from models.leases import Lease, alone
from models.registry import Registry
from models.rollouts import Rollouts
from tests.test_models_registry import DAY, ROOT, Clock, _config, _hidden, _publish, _write


@pytest.fixture
def registry(home: Path) -> Registry:
    home.mkdir()
    return Registry(Home(home), clock=Clock())


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "registry" / "feed"


@pytest.fixture
def six(registry: Registry) -> list[int]:
    """Published from the second to the seventh of the month."""
    return [_publish(registry, date(2026, 1, day)) for day in range(2, 8)]


# Rolling back


def test_a_rollback_swaps_champion_and_previous(registry: Registry, six: list[int]) -> None:
    registry.promote("feed", six[0])
    registry.promote("feed", six[1])
    back = registry.rollback("feed")
    assert (back.version, back.previous) == (six[0], six[1])
    pointer = registry.pointer("feed")
    assert pointer is not None
    assert (pointer.version, pointer.previous) == (six[0], six[1])
    assert registry.rollback("feed").version == six[1]


def test_served_rows_are_live_from_the_day_after_the_oldest_version_that_may_serve(
    registry: Registry, six: list[int]
) -> None:
    assert live_from(registry, "feed") is None
    Rollouts(registry).pin("feed", six[0])
    registry.promote("feed", six[3])
    assert live_from(registry, "feed") == date(2026, 1, 6)
    registry.promote("feed", six[4])  # the one before may be gone back to
    assert live_from(registry, "feed") == date(2026, 1, 6)
    Rollouts(registry).start("feed", "canary", six[1], 0.1)
    assert live_from(registry, "feed") == date(2026, 1, 4)


def test_nothing_to_roll_back_to(registry: Registry, six: list[int]) -> None:
    for promoted in (None, six[0]):
        if promoted:
            registry.promote("feed", promoted)
        with pytest.raises(BundleError, match="not rolled back: 'feed' has had no champion before this one"):
            registry.rollback("feed")
        assert registry.champion("feed") == promoted


def test_a_rollback_to_a_damaged_version_is_refused(registry: Registry, six: list[int], folder: Path) -> None:
    registry.promote("feed", six[0])
    registry.promote("feed", six[1])
    (folder / str(six[0]) / "saved_model.pb").write_bytes(b"grapH")
    with pytest.raises(BundleError, match=r"not rolled back: .*saved_model.pb is damaged"):
        registry.rollback("feed")
    assert registry.champion("feed") == six[1]


def test_two_who_expect_the_same_champion_roll_back_once(registry: Registry, six: list[int]) -> None:
    registry.promote("feed", six[0])
    registry.promote("feed", six[1])
    together, outcomes = threading.Barrier(4), []

    def roll_back() -> None:
        together.wait()
        try:
            outcomes.append(registry.rollback("feed", expected=six[1]).version)
        except BundleError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=roll_back) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(six[0]) == 1
    assert sum("not rolled back: the champion" in str(outcome) for outcome in outcomes) == 3
    assert registry.champion("feed") == six[0]


# Collecting


def test_the_newest_the_champion_and_the_one_before_stay(registry: Registry, six: list[int]) -> None:
    registry.promote("feed", six[1])
    registry.promote("feed", six[3])
    planned = collect(registry, "feed", 1, dry_run=True)
    assert registry.versions("feed") == six  # a dry run removes nothing
    done = collect(registry, "feed", 1)
    assert planned == done
    assert done.removed == [six[0], six[2], six[4]]
    assert done.kept == {six[1]: "previous", six[3]: "champion", six[5]: "among the newest"}
    assert registry.versions("feed") == [six[1], six[3], six[5]]
    assert collect(registry, "feed", 1).removed == []


def test_newest_is_by_publishing_and_not_by_day(registry: Registry) -> None:
    late, early = _publish(registry, date(2026, 1, 9)), _publish(registry, date(2026, 1, 2))
    assert collect(registry, "feed", 1).removed == [late]
    assert registry.versions("feed") == [early]


def test_pinned_versions_and_trials_stay(registry: Registry, six: list[int]) -> None:
    rollouts = Rollouts(registry)
    registry.promote("feed", six[5])
    rollouts.pin("feed", six[0])
    rollouts.pin("feed", six[0])
    rollouts.start("feed", "shadow", six[1], 1.0)
    rollouts.start("feed", "canary", six[2], 0.05)
    assert collect(registry, "feed", 1).removed == [six[3], six[4]]
    assert needed(registry, "feed") == {six[0]: "pinned", six[1]: "shadow", six[2]: "canary", six[5]: "champion"}
    rollouts.unpin("feed", six[0])
    rollouts.end("feed", "canary", "withdrawn", "too many errors")
    assert collect(registry, "feed", 1).removed == [six[0], six[2]]
    with pytest.raises(BundleError, match=f"'feed' {six[0]} is not pinned"):
        rollouts.unpin("feed", six[0])
    with pytest.raises(BundleError, match="there is no bundle 'feed'"):
        rollouts.pin("feed", six[0])


def test_the_bundles_of_experiments_stay(registry: Registry, six: list[int], home: Path) -> None:
    (home / "experiments").mkdir()
    arms = f"[[arms]]\nname='a'\ncontrol=true\nshare=0.5\n[[arms]]\nname='b'\nshare=0.5\nbundle={six[2]}\n"
    text = f"name='e'\nserves='feed'\nsalt='s'\nstart='2026-01-01'\nend='2026-01-31'\n{arms}"
    (home / "experiments" / "e.toml").write_text(text)
    assert collect(registry, "feed", 1).kept == {six[2]: "experiment", six[5]: "among the newest"}
    (home / "experiments" / "e.toml").write_text("not a file of experiments")
    with pytest.raises(WatchNextError):  # nobody can say what is needed
        collect(registry, "feed", 1)
    assert registry.versions("feed") == [six[2], six[5]]


def test_what_somebody_holds_stays_until_it_is_let_go(registry: Registry, six: list[int]) -> None:
    first, second = registry.hold("feed", six[0]), registry.hold("feed", six[0])
    assert collect(registry, "feed", 6, dry_run=True).removed == []
    assert collect(registry, "feed", 4).kept[six[0]] == "in use"
    first.release()
    first.release()
    assert collect(registry, "feed", 4).kept[six[0]] == "in use"
    del second
    assert collect(registry, "feed", 4).removed == [six[0]]


def test_another_living_process_counts_and_a_killed_one_does_not(registry: Registry, six: list[int], home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from data.home import Home; from models.registry import Registry\n"
        f"lease = Registry(Home(Path({str(home)!r}))).hold('feed', {six[0]}); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        assert collect(registry, "feed", 1).kept[six[0]] == "in use"
    finally:
        other.kill()
        other.communicate()
    assert collect(registry, "feed", 1).removed == [six[0]]


def test_a_number_is_not_given_away_again(registry: Registry) -> None:
    first, second = _publish(registry), _publish(registry)
    newest = _publish(registry, date(2026, 1, 3))
    assert collect(registry, "feed", 1).removed == [first, second]
    assert _publish(registry) == second + 1
    assert registry.versions("feed") == [second + 1, newest]


def test_a_damaged_version_takes_no_place_among_the_newest(registry: Registry, six: list[int], folder: Path) -> None:
    (folder / str(six[5]) / "assets.extra" / "manifest.json").write_bytes(b"{}")
    done = collect(registry, "feed", 1)
    assert done.kept == {six[4]: "among the newest"}


def test_the_weights_that_a_kept_version_has_stay(registry: Registry, six: list[int]) -> None:
    refreshed = registry.publish(
        "feed",
        date(2026, 1, 9),
        _write,
        config=_config(),
        first_day=DAY,
        reference_means={},
        utilisation={},
        window_end=date(2026, 1, 3),
        refreshed_from=six[1],
    )
    assert collect(registry, "feed", 1).kept == {six[1]: f"refreshed as {refreshed}", refreshed: "among the newest"}
    registry.promote("feed", refreshed)
    _publish(registry, date(2026, 1, 10))
    assert collect(registry, "feed", 1).kept[six[1]] == f"refreshed as {refreshed}"


def test_a_living_publisher_is_left_alone(registry: Registry, six: list[int], folder: Path) -> None:
    def write(outer: Path) -> None:
        (outer / "saved_model.pb").write_bytes(b"graph")
        assert collect(registry, "feed", 1).removed == six[:5]
        assert (outer / "saved_model.pb").exists()

    version = _publish(registry, date(2026, 1, 8), write)
    assert registry.open("feed", version)
    assert _hidden(folder) == []


def test_what_a_killed_collector_left_is_removed(registry: Registry, six: list[int], folder: Path) -> None:
    os.rename(folder / str(six[0]), folder / ".tmp-0123456789abcdef")
    (folder / ".tmp-0123456789abcdef.lock").touch()
    collect(registry, "feed", 6)
    assert _hidden(folder) == []


@pytest.mark.parametrize("keep", [0, -1])
def test_at_least_one_is_kept(registry: Registry, six: list[int], keep: int) -> None:
    with pytest.raises(BundleError, match="at least 1"):
        collect(registry, "feed", keep)
    assert registry.versions("feed") == six


def test_a_name_without_bundles_has_nothing_to_collect(registry: Registry) -> None:
    assert collect(registry, "feed", 1).removed == []


def test_a_folder_being_removed_cant_be_held(registry: Registry, six: list[int], folder: Path) -> None:
    held, outcome = threading.Event(), []

    def hold() -> None:
        held.wait(30)
        try:
            outcome.append(Lease(folder / str(six[0])))
        except BundleError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=hold)
    thread.start()
    with alone(folder / str(six[0])) as free:
        assert free
        held.set()
        os.rename(folder / str(six[0]), folder / ".tmp-x")
    thread.join()
    assert "has been removed meanwhile" in outcome[0] or "No such file" in outcome[0]


def test_promotions_and_collections_at_once_leave_a_champion_that_loads(registry: Registry, six: list[int]) -> None:
    """Whoever comes first: a version is either promoted, and then whole, or collected, and then refused."""
    rounds = 25
    stop, failures = threading.Event(), []

    def promote(seed: int) -> None:
        random, own = Random(seed), Registry(registry._home, clock=Clock())
        while not stop.is_set():
            try:
                own.promote("feed", random.choice(own.versions("feed")))
            except BundleError as error:
                if "not promoted" not in str(error):
                    failures.append(error)

    threads = [threading.Thread(target=promote, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    collected = 0
    try:
        for day in range(rounds):
            _publish(registry, date(2026, 2, 1 + day))
            collected += len(collect(registry, "feed", 1).removed)
            champion = registry.champion("feed")
            if champion is not None:
                registry.open("feed", champion)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert collected >= rounds // 2


KILLED = """
import os, random, signal, sys
from datetime import date, timedelta
from pathlib import Path
from data.home import Home
from models.collect import collect
from models.registry import Registry
from tests.test_models_registry import _publish

home, deaths = Home(Path(sys.argv[1])), int(sys.argv[2])
folder = home.registry("feed")

def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]

def collect_until_killed(steps):
    registry, left = Registry(home), [steps]
    registry.champion("feed")
    def step(event, arguments):
        if event == "open" or event.startswith(("os.", "shutil.", "fcntl.", "sqlite3.")):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    collect(registry, "feed", 1)

def prepare(round):
    registry = Registry(home)
    versions = [_publish(registry, date(2026, 1, 2) + timedelta(days=round)) for _ in range(4)]
    registry.promote("feed", versions[0])
    collect(registry, "feed", 4)  # what earlier rounds left, so that each begins alike

def check():
    registry = Registry(home)
    assert registry.open_serving("feed").version == registry.champion("feed")
    for version in registry.versions("feed"):
        registry.open("feed", version)  # none is half there

killed = half_way = 0
for round in range(deaths):
    assert forked(lambda: prepare(round)) == 0
    killed += forked(lambda: collect_until_killed(1 + 2 * round)) == signal.SIGKILL
    half_way += any(name.startswith(".tmp-") for name in os.listdir(folder))
    assert forked(check) == 0, round
print(killed, half_way)
"""


@pytest.mark.slow
def test_a_collector_killed_anywhere_leaves_whole_versions_and_the_champion(home: Path, folder: Path) -> None:
    home.mkdir()
    command = [sys.executable, "-c", KILLED, str(home), "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    killed, half_way = map(int, done.stdout.split())
    assert killed >= 20  # the others came to their end
    assert half_way >= 10
    registry = Registry(Home(home))
    collect(registry, "feed", 1)
    assert _hidden(folder) == []


# Trials


def test_the_same_canary_with_another_share_keeps_its_users(registry: Registry, six: list[int]) -> None:
    rollouts = Rollouts(registry)
    registry.promote("feed", six[0])
    rollouts.start("feed", "canary", six[1], 0.05)
    before = rollouts.find("feed")["canary"]
    rollouts.start("feed", "canary", six[1], 0.5)
    grown = rollouts.find("feed")["canary"]
    assert (grown.salt, grown.share, grown.running) == (before.salt, 0.5, True)
    rollouts.start("feed", "canary", six[2], 0.5)
    assert rollouts.find("feed")["canary"].salt != before.salt


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_is_above_0_and_at_most_1(registry: Registry, six: list[int], share: float) -> None:
    with pytest.raises(BundleError, match="expected a share above 0 and at most 1"):
        Rollouts(registry).start("feed", "shadow", six[0], share)


def test_the_champion_is_no_canary_and_a_damaged_version_none_either(
    registry: Registry, six: list[int], folder: Path
) -> None:
    rollouts = Rollouts(registry)
    registry.promote("feed", six[0])
    with pytest.raises(BundleError, match="is the champion"):
        rollouts.start("feed", "canary", six[0], 0.1)
    (folder / str(six[1]) / "saved_model.pb").write_bytes(b"grapH")
    with pytest.raises(BundleError, match="damaged"):
        rollouts.start("feed", "canary", six[1], 0.1)
    assert rollouts.find("feed") == {}


def test_only_the_version_that_was_meant_is_ended(registry: Registry, six: list[int]) -> None:
    rollouts = Rollouts(registry)
    rollouts.start("feed", "canary", six[1], 0.1)
    assert not rollouts.end("feed", "canary", "withdrawn", "late", only=six[2])
    assert rollouts.end("feed", "canary", "withdrawn", "late", only=six[1])
    assert not rollouts.end("feed", "canary", "stopped")
    found = rollouts.find("feed")["canary"]
    assert (found.state, found.reason, found.running) == ("withdrawn", "late", False)


# The commands


def test_the_commands(registry: Registry, six: list[int]) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(watchnext.app, ["models", *map(str, words)], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    registry.promote("feed", six[0])
    registry.promote("feed", six[1])
    assert run("rollback", "feed") == f"feed {six[0]} is the champion again, instead of {six[1]}\n"
    run("pin", "feed", six[2])
    run("shadow", "feed", six[3], 0.5)
    run("canary", "feed", six[4], 0.1)
    shown = {line.split()[1]: line for line in run("list", "feed").splitlines() if line.startswith("│ 2026")}
    reasons = ("champion", "previous", "pinned", "shadow", "canary")
    assert [reason in shown[str(version)] for version, reason in zip(six, reasons, strict=False)] == [True] * 5
    run("canary", "feed", "--stop")
    assert f"feed {six[4]} would be removed" in run("gc", "feed", "--keep", 1, "--dry-run")
    assert f"feed {six[4]} is removed" in run("gc", "feed", "--keep", 1)
    assert registry.versions("feed") == [*six[:4], six[5]]
    run("pin", "feed", six[2], "--remove")
    assert f"feed {six[2]} is removed" in run("gc", "feed", "--keep", 1)
    missing = CliRunner().invoke(watchnext.app, ["models", "canary", "feed"])
    assert (missing.exit_code, "expected NAME VERSION SHARE" in missing.stderr) == (2, True)
