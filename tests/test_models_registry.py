"""models/registry.py: publishing whole or not at all, the champion, and what serves when a bundle is refused."""

import errno
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data.config import Config, parse_config
from data.database import DatabaseError, writing
from data.errors import BundleError
from data.home import Home
from models.registry import Registry

DAY = date(2026, 1, 2)
ROOT = Path(__file__).parent.parent


def _config(name: str = "feed") -> Config:
    values: dict[str, Any] = {
        "name": name,
        "dataset": "feed",
        "seed": 7,
        "log": {},
        "labels": {"click": {"type": "binary"}},
        "features": [{"kind": "category", "name": "user", "column": "user_id"}],
        "objectives": [{"name": "click", "family": "engagement", "label": "click", "kind": "binary"}],
    }
    return parse_config(values, "test")


def _write(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "assets.extra" / "state").mkdir(parents=True)
    (folder / "assets.extra" / "state" / "scale.npy").write_bytes(b"1234")


def _publish(registry: Registry, day: date = DAY, write: Callable[[Path], None] = _write) -> int:
    means, utilisation = {"click": 0.25}, {"click": [1.0]}
    return registry.publish(
        "feed", day, write, config=_config(), first_day=DAY, reference_means=means, utilisation=utilisation
    )


class Clock:
    """Ten seconds pass between two looks."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 3, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=10)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(home: Path, clock: Clock) -> Registry:
    home.mkdir()
    return Registry(Home(home), clock=clock)


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "registry" / "feed"


def _hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".tmp-"))


def test_versions_are_the_day_and_a_number(registry: Registry, folder: Path) -> None:
    assert (registry.versions("feed"), registry.newest("feed"), registry.champion("feed")) == ([], None, None)
    assert [_publish(registry), _publish(registry)] == [2026010201, 2026010202]
    assert _publish(registry, date(2026, 1, 3)) == 2026010301
    assert registry.versions("feed") == [2026010201, 2026010202, 2026010301]
    assert _hidden(folder) == []
    bundle = registry.open("feed", 2026010202)
    assert (bundle.manifest.window.last_day, bundle.manifest.seed, bundle.config) == (DAY, 7, _config())
    assert registry.champion("feed") is None  # publishing does not promote


def test_the_hundredth_version_of_a_day_is_refused(registry: Registry, folder: Path) -> None:
    (folder / "2026010299").mkdir(parents=True)
    with pytest.raises(BundleError, match="already has version 2026010299: a day has at most 99"):
        _publish(registry)
    assert _hidden(folder) == []


def test_newest_is_the_last_published_even_when_the_clock_was_set_back(registry: Registry, clock: Clock) -> None:
    _publish(registry, date(2026, 1, 9))
    assert _publish(registry) == registry.newest("feed") == 2026010201
    clock.now -= timedelta(days=30)
    assert _publish(registry, date(2026, 1, 5)) == registry.newest("feed") == 2026010501


def test_other_entries_of_the_folder_are_no_versions(registry: Registry, folder: Path) -> None:
    version = _publish(registry)
    for name in ("20260102", "notes", "0000000001", ".tmp-2026010203"):
        (folder / name).mkdir()
    (folder / "2026010277").write_text("a file")
    (folder / "2026010278").symlink_to(folder / str(version))
    assert registry.versions("feed") == [version]
    with pytest.raises(BundleError, match="there is no bundle 'feed' 2026010278"):
        registry.open("feed", 2026010278)


@pytest.mark.parametrize("name", ["", "../feed", "feed/..", "Feed", "feed\n", ".tmp-1", "a" * 65, "fe\0ed", None, 3])
def test_a_name_becomes_a_path_only_when_it_is_one(registry: Registry, name: Any) -> None:
    for ask in (registry.versions, registry.newest, registry.champion, registry.open, registry.open_serving):
        with pytest.raises(BundleError, match="expected a bundle's name"):
            ask(name)


@pytest.mark.parametrize("version", [0, -1, 1, 20260102, 20260102011, "2026010201", "../x", 2026010201.0, True])
def test_a_version_is_an_integer_of_ten_digits(registry: Registry, version: Any) -> None:
    for ask in (registry.open, registry.promote):
        with pytest.raises(BundleError, match="expected a version"):
            ask("feed", version)


def test_a_config_of_another_name_is_refused(registry: Registry) -> None:
    with pytest.raises(BundleError, match="the configuration's name is 'food'"):
        registry.publish("feed", DAY, _write, config=_config("food"), first_day=DAY, reference_means={}, utilisation={})


def test_opening_bundles_imports_nothing_of_trainings() -> None:
    code = "import sys, models.registry, models.indexes; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"tensorflow", "keras", "pandas", "pyarrow", "matplotlib"} & set(done.stdout.split())


# The champion


def test_promotion_remembers_the_one_before(registry: Registry) -> None:
    first, second = _publish(registry), _publish(registry)
    for version, previous in ((first, None), (second, first), (second, first), (first, second)):
        registry.promote("feed", version)
        pointer = registry.pointer("feed")
        assert pointer is not None
        assert (pointer.version, pointer.previous) == (version, previous)
    assert registry.open("feed").version == registry.open_serving("feed").version == first


def test_promoting_again_keeps_the_time(registry: Registry, clock: Clock) -> None:
    version = _publish(registry)
    registry.promote("feed", version)
    before = registry.pointer("feed")
    assert before is not None
    assert before.promoted_at == clock.now
    registry.promote("feed", version)
    assert registry.pointer("feed") == before


def test_a_missing_or_damaged_version_is_not_promoted(registry: Registry, folder: Path) -> None:
    first, second = _publish(registry), _publish(registry)
    registry.promote("feed", first)
    with pytest.raises(BundleError, match=r"not promoted: there is no bundle 'feed' 2026010999 .* 2026010201, 2026010202"):
        registry.promote("feed", 2026010999)
    (folder / str(second) / "saved_model.pb").write_bytes(b"grapH")
    with pytest.raises(BundleError, match=r"not promoted: .*saved_model.pb is damaged"):
        registry.promote("feed", second)
    assert registry.champion("feed") == first


def test_without_a_champion_nothing_serves(registry: Registry) -> None:
    _publish(registry)
    for ask in (registry.open, registry.open_serving):
        with pytest.raises(BundleError, match="'feed' has no champion yet"):
            ask("feed")


def test_a_refused_champion_gives_way_to_the_last_good_one(
    registry: Registry, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, before, champion = (_publish(registry, date(2026, 1, d)) for d in (3, 4, 5))
    registry.promote("feed", before)
    registry.promote("feed", champion)
    never_promoted = _publish(registry, date(2026, 1, 6))
    served = []
    for version in (champion, before, old, never_promoted):
        served.append(registry.open_serving("feed").version)
        (folder / str(version) / "saved_model.pb").write_bytes(b"grapH")
    assert served == [champion, before, old, never_promoted]
    with pytest.raises(BundleError, match=r"no bundle of 'feed' can be served: .*2026010501/saved_model.pb is damaged"):
        registry.open_serving("feed")
    fallback = next(record for record in caplog.records if record.getMessage() == "bundle_fallback")
    assert fallback.levelno == logging.WARNING
    assert (fallback.__dict__["champion"], fallback.__dict__["version"]) == (champion, before)
    assert "saved_model.pb is damaged" in fallback.__dict__["reason"]


def test_a_champion_whose_folder_or_manifest_is_gone_gives_way(registry: Registry, folder: Path) -> None:
    first, second = _publish(registry), _publish(registry)
    registry.promote("feed", first)
    registry.promote("feed", second)
    manifest = folder / str(second) / "assets.extra" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert (registry.open_serving("feed").version, registry.newest("feed")) == (first, first)
    shutil.rmtree(folder / str(second))
    assert registry.open_serving("feed").version == first


# Publishing that fails


def test_a_failing_write_leaves_nothing(registry: Registry, folder: Path) -> None:
    def write(folder: Path) -> None:
        _write(folder)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        _publish(registry, write=write)
    assert (registry.versions("feed"), _hidden(folder)) == ([], [])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename", "write"])
def test_a_full_or_read_only_disk_is_a_sentence(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    champion = _publish(registry)
    registry.promote("feed", champion)

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if call != "write":
            patch.setattr(os, call, refuse)
        with pytest.raises(BundleError, match=f"cannot publish 'feed' in .*{os.strerror(code)}"):
            _publish(registry, write=refuse if call == "write" else _write)
    assert registry.versions("feed") == [champion]
    assert registry.open_serving("feed").version == champion
    assert _publish(registry) == champion + 1
    assert _hidden(folder) == []


def test_links_in_what_is_published_are_refused(registry: Registry, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        _write(folder)
        (folder / "assets.extra" / "link").symlink_to(tmp_path)

    with pytest.raises(BundleError, match="link is neither a file nor a folder"):
        _publish(registry, write=write)


def test_a_locked_database_keeps_the_champion(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    version = _publish(registry)
    monkeypatch.setattr("data.database.BUSY_TIMEOUT_MS", 1)
    registry.promote("feed", version)
    other = Registry(registry._home)
    with writing(registry.engine), pytest.raises(DatabaseError, match="database is locked"):
        other.promote("feed", version)
    assert other.champion("feed") == version


# Publishers that die, and publishers that meet


def test_a_living_publisher_is_left_alone_and_a_dead_ones_folder_removed(registry: Registry, folder: Path) -> None:
    first = _publish(registry)
    dead = folder / ".tmp-0123456789abcdef"
    dead.mkdir()
    (dead / "half").write_bytes(b"h")
    dead.with_name(dead.name + ".lock").touch()
    (folder / ".tmp-without-a-lock").mkdir()
    seen: list[list[str]] = []

    def write(outer: Path) -> None:
        _write(outer)
        (inner,) = {_publish(registry)}  # another publisher comes and goes meanwhile
        seen.append([str(inner), *_hidden(folder)])
        assert (outer / "saved_model.pb").exists()

    assert _publish(registry, write=write) == first + 2
    assert seen[0][0] == str(first + 1)
    assert [re.sub("[0-9a-f]{16}", "*", name) for name in seen[0][1:]] == [".tmp-*", ".tmp-*.lock"]
    assert dead.name not in seen[0]
    assert _hidden(folder) == []


def test_concurrent_publishers_get_a_version_each(registry: Registry, folder: Path) -> None:
    versions: list[int] = []
    together = threading.Barrier(3)

    def publish() -> None:
        together.wait()
        for _ in range(4):
            versions.append(_publish(registry))

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == registry.versions("feed") == list(range(2026010201, 2026010213))
    assert all(registry.open("feed", version) for version in versions)
    assert _hidden(folder) == []


KILLED = """
import os, random, signal, sys, traceback
from datetime import date, timedelta
from pathlib import Path
from data.home import Home
from models.registry import Registry
from tests.test_models_registry import _publish

home, steps = Home(Path(sys.argv[1])), int(sys.argv[2])
folder = home.registry("feed")

def forked(work):  # SQLite must not be carried over a fork, so the parent never opens it
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()  # the parent can only tell that it failed
        finally:
            os._exit(1)
    return child

def publish_until_killed(day, steps):
    # The interpreter announces every file that it opens, renames, removes or lists: die at one of those. A random time
    # would seldom fall into the few that matter, and on a busy machine seldom into a publish at all.
    registry, left = Registry(home), [steps]
    registry.champion("feed")
    def step(event, arguments):
        if event == "open" or event.startswith(("os.", "shutil.", "sqlite3.")):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    while True:
        registry.promote("feed", _publish(registry, day))

def check():
    if (champion := Registry(home).champion("feed")) is not None:
        assert Registry(home).open_serving("feed").version == champion

half_way = 0
deaths = random.Random(3).sample(range(1, steps + 1), steps)  # every step of a publish and a promotion, and of some more
for round, two in enumerate(zip(deaths[::2], deaths[1::2])):  # two at once
    children = [forked(lambda: publish_until_killed(date(2026, 1, 2) + timedelta(days=round), step)) for step in two]
    for child in children:
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the publisher ended by itself"
    assert os.waitpid(forked(check), 0)[1] == 0, "the champion does not load"
    half_way += any(name.startswith(".tmp-") for name in (os.listdir(folder) if folder.exists() else []))
print(half_way)
"""


@pytest.mark.slow
def test_killed_publishers_leave_no_half_bundle_and_a_champion_that_loads(home: Path, folder: Path) -> None:
    home.mkdir()
    command = [sys.executable, "-c", KILLED, str(home), "110"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    registry = Registry(Home(home))
    versions = registry.versions("feed")
    assert len(versions) >= 5  # some were published,
    assert int(done.stdout) >= 5  # and some were killed half-way
    assert all(registry.open("feed", version) for version in versions)
    champion = registry.champion("feed")
    assert champion is not None
    assert registry.open_serving("feed").version == champion
    _publish(registry, date(2026, 5, 1))
    assert _hidden(folder) == []
