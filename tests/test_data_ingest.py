"""An ingest as a whole: partitions, running again, extending, rebuilding, and being killed."""

import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from data import partition, spool
from data.config import Config
from data.errors import ConfigError, LogError
from data.features.slates import feature_times
from data.home import Home
from data.log import list_days, log_schema, read_day, read_table
from data.simulator.settings import WorldConfig
from data.simulator.write import simulate
from data.staging import open_staging
from tests.ingest_logs import DAY, HEADER, T0, good_rows, log_config, rejected, row, run, write_lines

FIRST, SECOND, THIRD = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
SESSIONS = {"log": {"session_gap": 600}}
USERS = {"users": {"files": ["users*"], "key": "id", "columns": {"age": {"type": "number"}}}}


def content(home: Path) -> dict[str, str]:
    """The hash of every file of the home, but for the lock."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def days_of_rows(first: int, last: int, users: int = 5, each: int = 40) -> list[str]:
    """Rows spread over days ``first`` to ``last`` (from 0), sessions across midnight included, in no order."""
    random = np.random.default_rng([first, last])
    lines = []
    for _ in range(each * (last - first + 1)):
        time = int(random.integers(first * DAY, (last + 1) * DAY) // 20_000 * 20_000)
        late = random.random() < 0.5
        time = ((time // DAY + 1) * DAY - int(random.integers(0, 600_000))) if late else time
        lines.append(row(f"u{random.integers(users)}", f"v{random.integers(9)}", time, watch=f"{random.integers(50)}"))
    return lines


def test_partitions_are_days_sorted_by_time_then_ids_as_text(tmp_path: Path, home: Path) -> None:
    lines = [
        row("u10", "v1", 5),
        row("u9", "v1", 5),
        row("u10", "v0", 5),
        row(time=DAY),
        row(time=DAY - 1),
        row("u10", "v1", 5, "z"),
    ]
    write_lines(tmp_path / "log.csv", HEADER, *lines)
    config = log_config()
    summary = run(config, home, tmp_path)
    assert list_days(Home(home), "hand") == [FIRST, SECOND]
    batch = read_day(Home(home), config, FIRST)
    keys = list(
        zip(
            batch.strings("user_id").tolist(), batch.strings("video_id").tolist(), batch.strings("tab").tolist(), strict=True
        )
    )
    assert keys == [("u10", "v0", "a"), ("u10", "v1", "a"), ("u10", "v1", "z"), ("u9", "v1", "a"), ("u1", "v1", "a")]
    assert batch.numbers("timestamp").tolist() == [T0 + 5] * 4 + [T0 + DAY - 1]
    assert (summary.manifest.rows, summary.manifest.users, summary.manifest.videos) == (6, 3, 2)


def test_the_file_has_the_schema_of_the_contract(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", f"{HEADER},request_id,click_visible_at", f"{row()},r1,{T0 + 9}")
    config = log_config()
    run(config, home, tmp_path)
    schema = pq.read_schema(Home(home).day("hand", FIRST) / "rows.parquet")
    names = ["user_id", "video_id", "timestamp", "visible_at", "request_id", "tab", "click", "click_visible_at", "watch"]
    names.append("source_row")
    assert schema.names == names
    assert all(schema.field(name).type == log_schema(config).field(name).type for name in names[:-1])
    assert read_day(Home(home), config, FIRST).numbers("click_visible_at").tolist() == [T0 + 9]


def test_days_are_the_timezones(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row(time=16 * 3_600_000 - 1), row(time=16 * 3_600_000))
    config = log_config(timezone="Asia/Shanghai")
    run(config, home, tmp_path)
    assert [len(read_day(Home(home), config, day)) for day in (FIRST, SECOND)] == [1, 1]


def test_outcomes_are_visible_after_the_named_label(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row(time=0, watch="1.2345"), row(time=1, watch=""))
    config = log_config(log={"visible_after": "watch"})
    run(config, home, tmp_path)
    assert read_day(Home(home), config, FIRST).numbers("visible_at").tolist() == [T0 + 1234, T0 + 1]


def test_running_twice_changes_nothing(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "in" / "log.csv", HEADER, *days_of_rows(0, 2), row(click="9"))
    write_lines(tmp_path / "in" / "users.csv", "id,age", "u1,3")
    config = log_config(**SESSIONS, **USERS)
    run(config, home, tmp_path / "in")
    before = content(home)
    again = run(config, home, tmp_path / "in")
    assert (again.files, again.known) == (0, 2)
    assert content(home) == before
    os.rename(tmp_path / "in", tmp_path / "moved")
    other = tmp_path / "other"
    run(config, other, tmp_path / "moved")
    assert content(other) == before


@pytest.mark.parametrize("parts", [[(0, 1), (2, 2)], [(2, 2), (0, 1)], [(1, 1), (0, 0), (2, 2)]])
def test_files_that_come_later_extend_to_what_all_at_once_give(
    tmp_path: Path, home: Path, parts: list[tuple[int, int]]
) -> None:
    config = log_config(**SESSIONS, **USERS)
    for first, last in parts:
        repeats = days_of_rows(0, 0)[:5]
        write_lines(tmp_path / "all" / f"log{first}.csv", HEADER, *days_of_rows(first, last), *repeats)
        write_lines(tmp_path / "all" / f"users{first}.csv", "id,age", f"u{first},{first}")
        run(config, home, tmp_path / "all")
    at_once = tmp_path / "at_once"
    run(config, at_once, tmp_path / "all")
    assert content(home) == content(at_once)
    assert list_days(Home(home), "hand") == [FIRST, SECOND, THIRD]
    users = read_table(Home(home), config, "users")
    assert users is not None
    assert len(users) == len(parts)


def test_a_file_that_has_grown_adds_its_new_rows(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, *good_rows(3))
    run(log_config(), home, tmp_path)
    write_lines(tmp_path / "log.csv", HEADER, *good_rows(5))
    summary = run(log_config(), home, tmp_path)
    assert (summary.rows_read, summary.duplicates, summary.manifest.rows) == (5, 3, 5)


def test_a_file_that_has_grown_is_refused_where_repeats_are_kept(tmp_path: Path, home: Path) -> None:
    config = log_config(ingest={"duplicates": "keep"})
    write_lines(tmp_path / "log.csv", HEADER, *good_rows(3))
    run(config, home, tmp_path)
    write_lines(tmp_path / "log.csv", HEADER, *good_rows(5))
    with pytest.raises(ConfigError, match="taken in before with other content"):
        run(config, home, tmp_path)


def test_other_settings_rebuild_from_all_sources_or_say_which_are_missing(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "a" / "log_a.csv", HEADER, *good_rows(3), row(time=DAY))
    write_lines(tmp_path / "b" / "log_b.csv", HEADER, row("u2", click="5"), *good_rows(30)[20:])
    run(log_config(ingest={"max_bad_share": 0.5}), home, tmp_path / "a", tmp_path / "b")
    before = content(home)
    narrow = log_config(ingest={"last_day": "2024-03-01", "max_bad_share": 0.5})
    with pytest.raises(ConfigError, match=r"other settings \(ingest changed\).*missing: log_b.csv"):
        run(narrow, home, tmp_path / "a")
    assert content(home) == before
    run(narrow, home, tmp_path / "b", tmp_path / "a")
    assert list_days(Home(home), "hand") == [FIRST]
    fresh = tmp_path / "fresh"
    run(narrow, fresh, tmp_path / "a", tmp_path / "b")
    assert content(home) == content(fresh)


def test_other_features_and_delays_need_no_rebuild(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row())
    run(log_config(), home, tmp_path)
    changed = log_config(
        name="other",
        labels={"click": {"type": "binary", "feedback_delay": 60}},
        features=[{"kind": "category", "name": "video", "column": "video_id"}],
    )
    assert run(changed, home, tmp_path).files == 0


def test_positions_of_the_source_are_kept_as_they_are(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", f"{HEADER},position", f"{row()},7", f"{row(time=1)},", f"{row(time=2)},2.5")
    config = log_config(**SESSIONS, ingest={"max_bad_share": 0.5})
    summary = run(config, home, tmp_path)
    np.testing.assert_array_equal(read_day(Home(home), config, FIRST).numbers("position"), [7, np.nan])
    assert not any("proxy" in note for note in summary.manifest.notes)
    assert [line["row"] for line in rejected(home)] == [4]


def test_small_slices_and_row_groups_change_nothing(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = days_of_rows(0, 1, each=200)
    write_lines(tmp_path / "log.csv", HEADER, *lines, *lines[::3])
    config = log_config(**SESSIONS)
    whole = run(config, tmp_path / "whole", tmp_path)
    monkeypatch.setattr(spool, "SLICE_ROWS", 37)
    sliced = run(config, home, tmp_path)
    assert content(home) == content(tmp_path / "whole")
    assert sliced.duplicates == whole.duplicates > 0
    monkeypatch.setattr(partition, "ROW_GROUP", 50)
    grouped = tmp_path / "grouped"
    run(config, grouped, tmp_path)
    for day in (FIRST, SECOND):
        one, other = (
            pq.read_table(Home(root).day("hand", day) / "rows.parquet", partitioning=None) for root in (home, grouped)
        )
        assert one.equals(other)


def test_an_empty_file_beside_others_is_noted(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log_a.csv", HEADER, row())
    (tmp_path / "log_b.csv").write_text("")
    write_lines(tmp_path / "log_c.csv", HEADER)
    assert run(log_config(), home, tmp_path).notes == ["log_b.csv is empty"]


def test_partitions_of_unknown_origin_are_not_touched(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row())
    run(log_config(), home, tmp_path)
    (home / "logs" / "hand" / "manifest.json").unlink()
    with pytest.raises(LogError, match=r"day partitions but no manifest.json"):
        run(log_config(), home, tmp_path)
    (home / "logs" / "hand" / "manifest.json").write_text("{")
    with pytest.raises(LogError, match="is damaged"):
        run(log_config(), home, tmp_path)


def test_damaged_and_missing_partitions_are_errors(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log_a.csv", HEADER, row())
    run(log_config(), home, tmp_path)
    write_lines(tmp_path / "log_b.csv", HEADER, row(time=1))
    path = Home(home).day("hand", FIRST) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(LogError, match=r"rows.parquet is damaged .*ingest all sources again"):
        run(log_config(), home, tmp_path)
    path.unlink()
    with pytest.raises(LogError, match=r"rows.parquet is missing: move"):
        run(log_config(), home, tmp_path)


def test_a_simulated_log_is_taken_in_whole(tmp_path: Path, home: Path) -> None:
    total = simulate(tmp_path / "world", WorldConfig.of_size(2000, days=3, first_day="2024-03-01"), 2000, seed=1)
    config = log_config(
        log={"files": ["log/*/*.parquet"], "context": {"device": {"type": "category"}}, "visible_after": "watch_time"},
        labels={"watch": {"type": "number", "source": "watch_time"}, "watch_time": {"type": "number", "minimum": 0}},
        users={"files": ["users.parquet"], "key": "user_id", "valid_from": "signup"},
        videos={"files": ["videos.parquet"], "key": "video_id", "valid_from": "upload"},
    )
    summary = run(config, home, tmp_path / "world")
    assert (summary.kept, summary.set_aside, summary.unknown, len(summary.manifest.days)) == (total, {}, {}, 3)
    assert summary.manifest.notes == []


REQUESTS = f"{HEADER},request_id"
HOUR = 3_600_000


def shown(time: int, request: str, video: str = "v1", user: str = "u1") -> str:
    return f"{row(user, video, time)},{request}"


def requests_of(home: Path, day: date) -> list[tuple[str | None, int]]:
    batch = read_day(Home(home), log_config(), day)
    times = [time - T0 for time in batch.numbers("timestamp").tolist()]
    return list(zip(batch.strings("request_id").tolist(), times, strict=True))


def test_a_request_that_crosses_midnight_is_in_one_piece_on_the_day_it_began(tmp_path: Path, home: Path) -> None:
    lines = [
        shown(DAY + 5, "r"),
        shown(DAY - 5, "r"),
        shown(DAY + 1, "s"),
        shown(DAY + 7, ""),
        shown(DAY - 1, ""),
        shown(2 * DAY - 1, "s"),  # began on the second day
        shown(2 * DAY + 9, "s"),
        shown(10, "long"),  # too long before midnight
        shown(DAY + 2, "long"),
        shown(2 * DAY - 2, "late"),
        shown(2 * DAY + 6 * HOUR - 1, "late"),
        shown(2 * DAY + 6 * HOUR, "late"),  # too long after it
    ]
    write_lines(tmp_path / "log.csv", REQUESTS, *lines)
    summary = run(log_config(), home, tmp_path)
    assert requests_of(home, FIRST) == [("long", 10), ("r", DAY - 5), (None, DAY - 1), ("r", DAY + 5)]
    assert requests_of(home, SECOND) == [
        ("s", DAY + 1),
        ("long", DAY + 2),
        (None, DAY + 7),
        ("late", 2 * DAY - 2),
        ("s", 2 * DAY - 1),
        ("s", 2 * DAY + 9),
        ("late", 2 * DAY + 6 * HOUR - 1),
    ]
    assert requests_of(home, THIRD) == [("late", 2 * DAY + 6 * HOUR)]
    assert feature_times(read_day(Home(home), log_config(), FIRST)).tolist()[-1] == T0 + DAY - 5
    assert [figures.rows for figures in summary.manifest.days.values()] == [4, 7, 1]


@pytest.mark.parametrize("changes", [{}, SESSIONS], ids=["plain", "sessions"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_requests_are_rejoined_whatever_order_the_files_came_in(
    tmp_path: Path, home: Path, order: tuple[int, ...], changes: Mapping[str, Any]
) -> None:
    """Each file has half of the requests that cross the midnights around it, and rows seen before."""
    random = np.random.default_rng(7)
    lines: list[list[str]] = [[], [], []]
    for request in range(60):
        midnight = DAY * int(random.integers(1, 3))
        for place in range(4):
            time = midnight + int(random.integers(-2 * HOUR, 2 * HOUR)) // 1000 * 1000
            lines[time // DAY].append(shown(time, f"r{request}", f"v{place}", f"u{request % 7}"))
    for place in (0, 1):
        lines[place + 1] += lines[place][:5]
    config = log_config(**changes)
    for place in order:
        write_lines(tmp_path / "all" / f"log{place}.csv", REQUESTS, *lines[place])
        run(config, home, tmp_path / "all")
    at_once = tmp_path / "at_once"
    run(config, at_once, tmp_path / "all")
    assert content(home) == content(at_once)
    run(config, home, tmp_path / "all")
    assert content(home) == content(at_once)
    found = [request for day in list_days(Home(home), "hand") for request in {r for r, _ in requests_of(home, day)}]
    assert len(found) == len(set(found)) == 60


def test_a_day_of_which_all_rows_belong_to_the_day_before_goes(tmp_path: Path, home: Path) -> None:
    config = log_config(**SESSIONS)
    write_lines(tmp_path / "all" / "log1.csv", REQUESTS, shown(DAY + 1, "r"), shown(DAY + 2, "r"))
    run(config, home, tmp_path / "all")
    assert list_days(Home(home), "hand") == [SECOND]
    write_lines(tmp_path / "all" / "log2.csv", HEADER, row(time=4), row(time=2 * DAY))  # knows of no requests
    run(config, home, tmp_path / "all")
    write_lines(tmp_path / "all" / "log0.csv", REQUESTS, shown(DAY - 1, "r"))
    run(config, home, tmp_path / "all")
    assert requests_of(home, FIRST) == [(None, 4), ("r", DAY - 1), ("r", DAY + 1), ("r", DAY + 2)]
    assert read_day(Home(home), config, FIRST).numbers("position").tolist() == [0, 0, 1, 2]
    assert list_days(Home(home), "hand") == [FIRST, THIRD]
    at_once = tmp_path / "at_once"
    run(config, at_once, tmp_path / "all")
    assert content(home) == content(at_once)
    assert not Home(home).day("hand", SECOND).exists()


def test_requests_come_into_a_log_that_had_none(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log0.csv", HEADER, row(time=DAY - 3), row(time=DAY + 3))
    run(log_config(), home, tmp_path)
    write_lines(tmp_path / "log1.csv", REQUESTS, shown(DAY - 1, "r"), shown(DAY + 1, "r"))
    run(log_config(), home, tmp_path)
    assert requests_of(home, FIRST) == [(None, DAY - 3), ("r", DAY - 1), ("r", DAY + 1)]


def test_one_process_at_a_time(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row())
    with open_staging(Home(home), "hand"), pytest.raises(LogError, match="another ingest"):
        run(log_config(), home, tmp_path)


def test_the_summary_says_what_happened(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, *good_rows(40), row(time=0, video="v0"), row(click="[b]7"))
    console = Console(record=True, width=200, file=io.StringIO())
    run(log_config(**SESSIONS), home, tmp_path).print(console)
    text = console.export_text()
    assert "Read 42 log rows" in text
    assert "Kept 40; dropped 1 exact repeats; set aside 1." in text
    assert "type: 1" in text
    assert "log.csv, row 43: click: expected 0, 1, true or false" in text
    assert "position is a proxy" in text
    assert "40 impressions, 1 days (2024-03-01 to 2024-03-01), 1 users, 40 videos" in text


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from tests.ingest_logs import log_config, run
name, count = {call!r}, {count}
whole = getattr(os, name)
def killed(*args, **kwargs):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **kwargs)
setattr(os, name, killed)
run(log_config(**{changes!r}), Path({home!r}), Path({source!r}))
"""


def killed_run(changes: Mapping[str, Any], home: Path, source: Path, call: str, count: int) -> None:
    """An ingest in a process that is killed at the ``count``-th use of ``os.<call>``."""
    root = str(Path(__file__).parent.parent)
    script = KILLED.format(root=root, call=call, count=count, changes=dict(changes), home=str(home), source=str(source))
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=root, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(("call", "count"), [("fsync", 0), ("fsync", 6), ("replace", 0), ("replace", 3), ("unlink", 1)])
def test_a_kill_leaves_the_old_partitions_or_the_new(tmp_path: Path, home: Path, call: str, count: int) -> None:
    config: Config = log_config(**SESSIONS)
    write_lines(tmp_path / "in" / "log_a.csv", HEADER, *days_of_rows(0, 1))
    run(config, home, tmp_path / "in")
    old = content(home)
    write_lines(tmp_path / "in" / "log_b.csv", HEADER, *days_of_rows(1, 2), row(click="8"))
    run(config, tmp_path / "new", tmp_path / "in")
    new = content(tmp_path / "new")
    killed_run(SESSIONS, home, tmp_path / "in", call, count)
    left = {name: digest for name, digest in content(home).items() if ".staging" not in name}
    assert all(digest in (old.get(name), new[name]) for name, digest in left.items())
    assert {*old} <= {*left}
    run(config, home, tmp_path / "in")
    assert content(home) == new
