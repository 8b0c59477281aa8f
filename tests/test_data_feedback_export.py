"""data/feedback/export.py and retention.py: final days become partitions, exactly once, whatever happens on the way."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from rich.console import Console
from typer.testing import CliRunner

import watchnext
from data.config import Config
from data.database import open_database, reading, writing
from data.errors import ConfigError, LogError
from data.feedback.catalogue import bring_tables
from data.feedback.events import Event
from data.feedback.retention import retain
from data.feedback.schema import catalogue, events, exports, served, served_items
from data.home import Home
from data.ingest import ingest
from data.log import list_days, read_day, read_table
from data.manifest import load_manifest
from data.staging import open_staging
from tests.feedback_world import HOUR, Clock, export, feedback_config, opened, slate, start_of
from tests.small_log import FIRST_DAY, rows_of

CONFIG = feedback_config()
END = start_of(CONFIG, 1)
"""Of the first day."""
READ, ALL = ("click", "watch", "like"), ("click", "watch", "like", "rating")


def fill(home: Path, days: int = 2, config: Config = CONFIG) -> None:
    """Each day three requests of two users, of which the first two videos are seen, the first one clicked and, on the day
    after, rated; and one that can't be rebuilt. An orphan a day."""
    clock = Clock(start_of(config, 0))
    with opened(home, config, clock) as feedback:
        for day in range(days + 1):
            for number in range(3) if day < days else ():
                clock.now = start_of(config, day) + (8 + number) * HOUR
                request = f"r{day}.{number}"
                feedback.log_served(slate(request, f"u{number % 2}", clock.now, ["a", "b", "c"], context={"tab": "1"}))
                feedback.log_served(slate(f"own{request}", "u1", clock.now, ["a"], rebuildable=number > 0))
                clock.now += 1000
                told = [("a", "click", None), ("a", "watch", 3.5), ("b", "view", None)]
                feedback.accept([Event(f"{request}{v}{k}", request, v, k, value) for v, k, value in told])
            clock.now = start_of(config, day) + 16 * HOUR
            if day:
                feedback.accept([Event(f"{day}.{n}", f"r{day - 1}.{n}", "a", "stars", 4.0) for n in range(3)])
                feedback.accept([Event(f"orphan{day}", "nobody's", "a", "view")])


def partition(home: Path, day: int = 0) -> list[dict[str, Any]]:
    return rows_of(read_day(Home(home), CONFIG, FIRST_DAY + timedelta(days=day)))


def table(home: Path, which: sa.Table) -> list[Any]:
    engine = open_database(f"sqlite:///{home}/watchnext.db")
    with reading(engine) as connection:
        rows = list(connection.execute(sa.select(which)))
    engine.dispose()
    return rows


def test_a_day_is_exported_when_it_is_final_and_once(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    assert export(tmp_path, CONFIG, END + 6 * HOUR - 1) == []
    (done,) = export(tmp_path, CONFIG, END + 6 * HOUR)
    assert (done.day, done.revision, done.rows, done.closed, done.skipped) == (FIRST_DAY, 1, 6, READ, 1)
    before = (tmp_path / "logs/small/manifest.json").read_bytes()
    assert export(tmp_path, CONFIG, END + 8 * HOUR) == []
    assert (tmp_path / "logs/small/manifest.json").read_bytes() == before
    (entered,) = table(tmp_path, exports)
    assert (entered.dataset, entered.day, entered.revision, entered.rows) == ("small", "2024-03-01", 1, 6)
    assert (entered.sha256, json.loads(entered.closed)) == (done.sha256, list(READ))


def test_rows_are_those_of_the_log_contract(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    export(tmp_path, CONFIG, END + 6 * HOUR)
    first, second, *_ = partition(tmp_path)
    t = start_of(CONFIG, 0) + 8 * HOUR
    same = {"user_id": "u0", "request_id": "r0.0", "timestamp": t, "tab": "1", "seen_at": t + 1000, "visible_at": t + 1000}
    assert {**same, "video_id": "a", "position": 0, "click": 1, "watch": 3.5, "like": 0}.items() <= first.items()
    assert (first["click_visible_at"], first["watch_visible_at"], first["like_visible_at"]) == (
        t + 1000,
        t + 2 * HOUR,
        t + 6 * HOUR,
    )
    assert {**same, "video_id": "b", "position": 1, "click": 0, "like": 0}.items() <= second.items()
    assert np.isnan([second["watch"], second["battery"], second["propensity"], second["is_exploration"]]).all()


def test_a_label_that_closes_later_replaces_the_day(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    export(tmp_path, CONFIG, END + 6 * HOUR)
    masked = partition(tmp_path)
    assert np.isnan([row["rating"] for row in masked]).all()
    (done,) = export(tmp_path, CONFIG, END + 40 * HOUR)
    assert (done.revision, done.rows, done.closed) == (2, 6, ALL)
    rated = partition(tmp_path)
    np.testing.assert_equal([row["rating"] for row in rated], [4.0, np.nan] * 3)
    for row in (*masked, *rated):
        del row["rating"], row["rating_visible_at"]
    np.testing.assert_equal(masked, rated)
    assert export(tmp_path, CONFIG, END + 900 * HOUR) == []


def test_what_is_published_does_not_depend_on_when_and_how_often(tmp_path: Path) -> None:
    for name, times in (("often", (6, 9, 30, 41, 90)), ("once", (90,))):
        fill(tmp_path / name)
        for hours in times:
            export(tmp_path / name, CONFIG, END + hours * HOUR)
    assert [d.sha256 for d in manifest(tmp_path / "often").exports.values()] == [
        d.sha256 for d in manifest(tmp_path / "once").exports.values()
    ]
    assert [d.revision for d in manifest(tmp_path / "often").exports.values()] == [2, 2]


def manifest(home: Path) -> Any:
    return load_manifest(Home(home), "small")


def test_the_manifest_is_true(tmp_path: Path) -> None:
    fill(tmp_path)
    export(tmp_path, CONFIG, END + 90 * HOUR)
    known = manifest(tmp_path)
    assert {day: figures.rows for day, figures in known.days.items()} == {"2024-03-01": 6, "2024-03-02": 6}
    assert known.days["2024-03-01"].labels["click"] == (6, 3.0)
    assert (known.users, known.videos) == (2, 2)
    assert {"seen_at", "rating", "rating_visible_at", "propensity"} <= set(known.columns)
    for day in list_days(Home(tmp_path), "small"):
        rows = pq.read_table(Home(tmp_path).day("small", day) / "rows.parquet", partitioning=None)
        assert rows.num_rows == known.exports[str(day)].rows
        assert "source_row" in rows.column_names


def test_a_day_on_which_nobody_saw_anything_has_no_partition(tmp_path: Path) -> None:
    clock = Clock(start_of(CONFIG, 0) + HOUR)
    with opened(tmp_path, CONFIG, clock) as feedback:
        feedback.log_served(slate("r", "u", clock.now, ["a"]))
    (done,) = export(tmp_path, CONFIG, END + 6 * HOUR)
    assert (done.rows, done.sha256) == (0, None)
    assert list_days(Home(tmp_path), "small") == []
    assert export(tmp_path, CONFIG, END + 7 * HOUR) == []


def write_sources(folder: Path, day: int) -> Path:
    """A team's files: two impressions of the day, and the tables."""
    folder.mkdir()
    t = start_of(CONFIG, day) + 5 * HOUR
    head = "user_id,video_id,timestamp,tab,battery,click,watch,like,rating\n"
    (folder / f"log{day}.csv").write_text(head + f"u0,a,{t},1,0.5,1,7,0,\nu5,z,{t + 9},2,0.5,0,0,0,\n")
    (folder / "u.csv").write_text("user_id,city,age\nu0,x,30\n")
    (folder / "v.csv").write_text(f"video_id,valid_from,author,tags,duration\na,{t},ann,x,7\n")
    return folder


SOURCES = feedback_config(
    users={"files": ["u.csv"], "key": "user_id", "columns": {"city": {"type": "category"}, "age": {"type": "number"}}},
    videos={
        "files": ["v.csv"],
        "key": "video_id",
        "valid_from": "valid_from",
        "columns": {"author": {"type": "category"}, "tags": {"type": "categories"}, "duration": {"type": "number"}},
    },
)


@pytest.mark.parametrize("order", ["files first", "files last"])
def test_a_day_may_hold_a_teams_files_and_what_was_served(tmp_path: Path, order: str) -> None:
    home, quiet = tmp_path / "home", Console(file=StringIO())
    fill(home, 1)
    folder = write_sources(tmp_path / "files", 0)
    steps = [
        lambda: ingest(SOURCES, [folder], Home(home), quiet),
        lambda: export(home, SOURCES, END + 6 * HOUR),
    ]
    for step in steps if order == "files first" else reversed(steps):
        step()
    export(home, SOURCES, END + 40 * HOUR)
    rows = partition(home)
    assert [(row["video_id"], row["click"], np.isnan(row["seen_at"])) for row in rows][:4] == [
        ("a", 1, True),
        ("z", 0, True),
        ("a", 1, False),
        ("b", 0, False),
    ]
    assert len(rows) == 8
    assert manifest(home).days["2024-03-01"].rows == 8
    ingest(SOURCES, [folder], Home(home), quiet)
    np.testing.assert_equal(partition(home), rows)


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    export(tmp_path, CONFIG, END + 6 * HOUR)
    rows = partition(tmp_path)
    changed = feedback_config(timezone="UTC")
    with pytest.raises(ConfigError, match=r"timezone changed.*name another dataset"):
        export(tmp_path, changed, END + 90 * HOUR)
    with pytest.raises(ConfigError, match="what was served, which no source can rebuild"):
        ingest(changed.model_copy(update={"users": None}), [write_sources(tmp_path / "f", 0)], Home(tmp_path), Console())
    np.testing.assert_equal(partition(tmp_path), rows)
    (again,) = export(tmp_path, feedback_config(dataset="other"), END + 6 * HOUR)
    assert (again.dataset, again.revision, again.rows) == ("other", 1, 6)


def test_one_at_a_time(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with open_staging(Home(tmp_path), "small"), pytest.raises(LogError, match="another ingest of dataset 'small'"):
        export(tmp_path, CONFIG, END + 6 * HOUR)


def test_videos_of_the_api_come_into_the_table(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    engine = open_database(f"sqlite:///{tmp_path}/watchnext.db")
    for time, author in ((5, "ann"), (9, "bob")):
        columns = json.dumps({"author": author, "tags": ["x", "y"], "duration": None})
        with writing(engine) as connection:
            row = {"video_id": "a", "columns": columns, "valid_from": time, "updated_at": time}
            connection.execute(catalogue.insert().values(row))
    engine.dispose()
    export(tmp_path, CONFIG, END + 6 * HOUR)
    videos = read_table(Home(tmp_path), CONFIG, "videos")
    users = read_table(Home(tmp_path), CONFIG, "users")
    assert videos is not None
    assert users is not None
    rows = rows_of(videos)
    assert [(row["valid_from"], row["author"], row["tags"]) for row in rows] == [
        (5, "ann", ["x", "y"]),
        (9, "bob", ["x", "y"]),
    ]
    assert len(users) == 0
    assert manifest(tmp_path).tables["videos"]["rows"] == 2


def test_videos_of_the_api_come_between_exports_too(tmp_path: Path) -> None:
    bring_tables(CONFIG, Home(tmp_path))  # there is no dataset yet: nothing to do
    fill(tmp_path, 1)
    export(tmp_path, CONFIG, END + 6 * HOUR)
    engine = open_database(f"sqlite:///{tmp_path}/watchnext.db")
    with writing(engine) as connection:
        row = {"video_id": "a", "columns": '{"author": "ann"}', "valid_from": 5, "updated_at": 5}
        connection.execute(catalogue.insert().values(row))
    engine.dispose()
    for _ in range(2):
        bring_tables(CONFIG, Home(tmp_path))
        videos = read_table(Home(tmp_path), CONFIG, "videos")
        assert videos is not None
        assert videos.strings("author").tolist() == ["ann"]
        assert manifest(tmp_path).tables["videos"] == {"rows": 1, "dated": True, "replaced": 0}
    assert [len(partition(tmp_path)), export(tmp_path, CONFIG, END + 6 * HOUR)] == [6, []]


def test_what_was_exported_for_good_is_forgotten_after_a_time(tmp_path: Path) -> None:
    config = feedback_config(events={"retention_days": 3})
    fill(tmp_path)
    export(tmp_path, config, END + 24 * HOUR + 6 * HOUR)  # of the second day the rating is open
    late = END + 100 * 24 * HOUR
    assert retain(config, Home(tmp_path), END + 3 * 24 * HOUR).requests == 0
    removed = retain(config, Home(tmp_path), late)
    assert (removed.requests, removed.orphans) == (0, 2)  # no day was exported with all labels closed
    export(tmp_path, config, END + 40 * HOUR)
    second = FIRST_DAY + timedelta(days=1)
    assert retain(config, Home(tmp_path), late, live_from=second - timedelta(days=1)).requests == 0
    assert retain(config, Home(tmp_path), late, live_from=second).requests == 6
    assert {row.request_id[:2] for row in table(tmp_path, served)} == {"r1", "ow"}
    export(tmp_path, config, late)
    before = partition(tmp_path), partition(tmp_path, 1)
    assert retain(config, Home(tmp_path), late).requests == 6
    assert [len(table(tmp_path, which)) for which in (served, served_items, events)] == [0, 0, 0]
    assert export(tmp_path, config, late) == []
    np.testing.assert_equal((partition(tmp_path), partition(tmp_path, 1)), before)


def test_the_command_exports_and_says_so(home: Path) -> None:
    config, clock = watchnext.read_config("tiny"), Clock(start_of(CONFIG, 0) + 12 * HOUR)
    with opened(home, config, clock) as feedback:
        feedback.log_served(replace(slate("r", "u", clock.now, ["a", "b"], context={"device": "tv"}), name="tiny"))
        clock.now += 1000
        feedback.accept([Event("e", "r", "a", "click")])
    for rows, days in ((1, 1), (0, 0)):
        result = CliRunner().invoke(watchnext.app, ["export", "tiny"])
        assert result.exit_code == 0, result.output
        assert f"{days} days exported" in result.output
        assert ("2024-03-01: 1 impressions, revision 1" in result.output) == bool(rows)
    (day,) = list_days(Home(home), "tiny")
    assert read_day(Home(home), config, day).numbers("click").tolist() == [1.0]
    assert '"days": ["2024-03-01"]' in (home / "watchnext.log").read_text()


def killed_and_whole(tmp_path: Path, now: int) -> tuple[Path, Path]:
    """Homes with two days served, the first one exported; the second home then exported and tidied without a kill."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for home in (killed, whole):
        fill(home)
        export(home, CONFIG, END + 6 * HOUR)
    export(whole, CONFIG, now)
    retain(feedback_config(events={"retention_days": 1}), Home(whole), now)
    return killed, whole


def kill(*arguments: object) -> int:
    command = [sys.executable, str(Path(__file__).parent / "feedback_exporter.py"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def assert_same(home: Path, whole: Path) -> None:
    files = sorted(path for path in (whole / "logs").rglob("*.*") if path.is_file())
    assert len(files) == 6  # two partitions, two tables, the manifest, the lock
    for path in files:
        assert path.read_bytes() == (home / path.relative_to(whole)).read_bytes(), path
    for which in (served, served_items, events):
        assert sorted(table(home, which)) == sorted(table(whole, which))
    mine, other = ([row[:7] for row in table(each, exports)] for each in (home, whole))
    assert mine == other


NOW = END + 40 * HOUR
"""The first day closes for good and is forgotten, the second is final."""


def test_an_export_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    killed, whole = killed_and_whole(tmp_path, NOW)
    assert kill(killed, NOW) > 10
    assert_same(killed, whole)


@pytest.mark.slow
def test_an_export_killed_at_any_step_ends_as_one_that_was_not(tmp_path: Path) -> None:
    killed, whole = killed_and_whole(tmp_path, NOW)
    kills = kill(killed, NOW, tmp_path / "copies")
    assert kills > 30
    for number in range(kills):
        assert_same(tmp_path / "copies" / str(number), whole)
