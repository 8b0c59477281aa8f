"""Each check on rows written by hand: what it sets aside, why and from which line."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.checks import duplicates, order
from data.errors import LogError
from data.home import Home
from data.log import read_day
from tests.ingest_logs import DAY, HEADER, NOW, T0, good_rows, log_config, rejected, row, run, write_lines

LENIENT = {"max_bad_share": 0.5}


def outcome(tmp_path: Path, home: Path, *lines: str, end: str = "\n", **changes: Any) -> list[tuple[str, int, str]]:
    """(reason, row, text) of what an ingest of good rows and then ``lines`` sets aside; the good rows are 2 to 11."""
    write_lines(tmp_path / "in" / "log.csv", HEADER, *good_rows(10), *lines, end=end)
    config = log_config(**{"ingest": LENIENT, **changes})
    summary = run(config, home, tmp_path / "in")
    found = [(line["reason"], line["row"], line["text"]) for line in rejected(home)]
    assert sum(summary.set_aside.values()) == len(found)
    assert summary.kept == summary.rows_read - len(found) - summary.duplicates
    return found


@pytest.mark.parametrize(
    "bad",
    [
        row(user=""),
        row(video=""),
        "u1,v1,,a,0,1.5",
        "u1,v1,yesterday,a,0,1.5",
        f"u1,v1,{T0}.5,a,0,1.5",
        row(click="2"),
        row(click="yes"),
        row(watch="long"),
    ],
)
def test_a_value_of_the_wrong_type_is_set_aside(tmp_path: Path, home: Path, bad: str) -> None:
    assert outcome(tmp_path, home, bad) == [("type", 12, bad)]


def test_binary_labels_take_numbers_and_words_and_null(tmp_path: Path, home: Path) -> None:
    clicks = ["0", "1", "true", "False", "1.0", ""]
    lines = [row("u9", f"w{i}", i, click=click) for i, click in enumerate(clicks)]
    assert outcome(tmp_path, home, *lines) == []
    config = log_config()
    batch = read_day(Home(home), config, date(2024, 3, 1))
    mine = batch.take(np.array([user == "u9" for user in batch.strings("user_id").tolist()]))
    np.testing.assert_array_equal(mine.numbers("click"), [0, 1, 1, 0, 1, np.nan])


@pytest.mark.parametrize("watch", ["-0.1", "3600.5", "nan", "inf", "-inf"])
def test_a_label_outside_its_range_is_set_aside(tmp_path: Path, home: Path, watch: str) -> None:
    bad = row(watch=watch)
    assert outcome(tmp_path, home, row(watch="0"), row(video="x", watch="3600"), bad) == [("range", 14, bad)]


def test_a_propensity_is_above_0_and_at_most_1(tmp_path: Path, home: Path) -> None:
    lines = [f"{line},{p}" for line, p in zip(good_rows(5), ["0.5", "1", "0", "1.1", ""], strict=True)]
    write_lines(tmp_path / "in" / "log.csv", f"{HEADER},propensity", *lines)
    run(log_config(ingest=LENIENT), home, tmp_path / "in")
    assert [(line["reason"], line["row"]) for line in rejected(home)] == [("range", 4), ("range", 5)]


def test_a_number_of_the_context_has_a_range_too(tmp_path: Path, home: Path) -> None:
    log = {"context": {"tab": {"type": "number", "minimum": 1, "null": ["?"]}}}
    lines = [row(tab="2", video=f"v{i}") for i in range(9)]
    write_lines(tmp_path / "in" / "log.csv", HEADER, *lines, row(tab="?"), row(tab="0"))
    run(log_config(log=log, ingest=LENIENT), home, tmp_path / "in")
    assert [(line["reason"], line["row"]) for line in rejected(home)] == [("range", 12)]


def test_times_too_early_or_in_the_future_are_set_aside(tmp_path: Path, home: Path) -> None:
    latest = NOW + DAY - T0
    early = f"u1,v1,{946_684_800_000 - 1},a,0,1"
    lines = [row(time=latest), row(time=latest + 1), early, "u1,v2,946684800000,a,0,1"]
    assert outcome(tmp_path, home, *lines) == [("time", 13, row(time=latest + 1)), ("time", 14, early)]


def test_rows_out_of_order_are_sorted_and_counted(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "in" / "log.csv", HEADER, row(time=3000), row(time=1000), row(time=2000), row(time=0))
    assert run(log_config(), home, tmp_path / "in").backwards == 2
    assert order.count_backwards(np.array([1, 3, 2]), previous=2) == 2
    assert order.count_backwards(np.array([2, 3]), previous=2) == 0


def test_days_outside_the_configured_ones_are_set_aside_but_not_bad(tmp_path: Path, home: Path) -> None:
    lines = [row(time=-1), row(time=0), row(time=DAY - 1), row(time=DAY)]
    write_lines(tmp_path / "in" / "log.csv", HEADER, *lines)
    config = log_config(ingest={"first_day": "2024-03-01", "last_day": "2024-03-01", "max_bad_share": 0})
    summary = run(config, home, tmp_path / "in")
    assert summary.kept == 2
    assert [(line["reason"], line["row"]) for line in rejected(home)] == [("outside the days", 2), ("outside the days", 5)]


def test_exact_repeats_are_dropped_and_those_that_differ_kept(tmp_path: Path, home: Path) -> None:
    one, other = row(click="0"), row(click="1")
    write_lines(tmp_path / "in" / "log.csv", HEADER, one, other, one, one, row(time=5))
    summary = run(log_config(ingest={"max_bad_share": 0}), home, tmp_path / "in")
    assert (summary.rows_read, summary.duplicates, summary.kept) == (5, 2, 3)
    assert [day.sharing for day in summary.manifest.days.values()] == [2]
    assert rejected(home) == []


def test_rows_that_differ_only_in_a_column_nobody_reads_are_no_repeats(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "in" / "log.csv", f"{HEADER},build", f"{row()},1", f"{row()},2", f"{row()},2")
    summary = run(log_config(), home, tmp_path / "in")
    assert (summary.duplicates, summary.kept) == (1, 2)


def test_repeats_can_be_kept(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "in" / "log.csv", HEADER, row(), row())
    assert run(log_config(ingest={"duplicates": "keep"}), home, tmp_path / "in").kept == 2


def test_duplicates_compare_lists_and_nulls() -> None:
    rows = pa.table(
        {
            "timestamp": [1, 1, 1, 1, 2],
            "user_id": ["u"] * 5,
            "video_id": ["v"] * 5,
            "tags": [["a", "b"], None, ["a", "b"], None, ["a", "b"]],
            "click": [1.0, None, 1.0, None, 1.0],
        }
    )
    found = duplicates.find(rows)
    assert found.keep.tolist() == [True, True, False, False, True]
    assert found.sharing == 2


def test_an_outcome_known_before_its_impression_is_set_aside(tmp_path: Path, home: Path) -> None:
    lines = [
        f"{line},{T0 + 60_000 * i + wait}" for i, (line, wait) in enumerate(zip(good_rows(4), [0, -1, 9, 1], strict=True))
    ]
    write_lines(tmp_path / "in" / "log.csv", f"{HEADER},click_visible_at", *lines, f"{row('u2')},")
    run(log_config(ingest=LENIENT), home, tmp_path / "in")
    assert [(line["reason"], line["row"]) for line in rejected(home)] == [("label before impression", 3)]


@pytest.mark.parametrize("policy", ["keep", "reject"])
def test_ids_missing_from_the_tables(tmp_path: Path, home: Path, policy: str) -> None:
    write_lines(tmp_path / "in" / "users.csv", "id", "u1")
    write_lines(tmp_path / "in" / "log.csv", HEADER, *good_rows(3), row("u2"), row("u2", "v9"))
    config = log_config(users={"files": ["users.csv"], "key": "id"}, ingest={**LENIENT, "unknown_ids": policy})
    summary = run(config, home, tmp_path / "in")
    if policy == "keep":
        assert (summary.kept, summary.unknown) == (5, {"user_id": 2})
    else:
        assert [(line["reason"], line["row"]) for line in rejected(home)] == [("unknown id", 5), ("unknown id", 6)]


@pytest.mark.parametrize("cut", ["u1,v1", f"u1,v1,{T0},a,0,", 'u1,"v1'])
def test_a_file_cut_mid_row_loses_that_row_alone(tmp_path: Path, home: Path, cut: str) -> None:
    assert outcome(tmp_path, home, cut, end="") == [("truncated", 12, cut)]


def test_a_whole_last_row_without_a_line_break_is_kept(tmp_path: Path, home: Path) -> None:
    assert outcome(tmp_path, home, row("u2"), end="") == []


@pytest.mark.parametrize("line", ["u1,v1", f"{row()},more", 'u1,"v1,1,a,0,1'])
def test_a_damaged_line_loses_itself_alone(tmp_path: Path, home: Path, line: str) -> None:
    assert outcome(tmp_path, home, line, row("u2"), "", row("u3", click="7")) == [
        ("damaged", 12, line),
        ("type", 15, row("u3", click="7")),
    ]


def test_bytes_that_are_no_text_are_set_aside_as_they_are(tmp_path: Path, home: Path) -> None:
    path = write_lines(tmp_path / "in" / "log.csv", HEADER, *good_rows(10))
    with path.open("ab") as file:
        file.write(b"u\xff1,v1,1,a,0,1\n")
    run(log_config(ingest=LENIENT), home, tmp_path / "in")
    (line,) = rejected(home)
    assert (line["reason"], line["row"]) == ("damaged", 12)
    assert line["text"].encode("utf-8", "surrogateescape") == b"u\xff1,v1,1,a,0,1"


def test_too_many_bad_rows_stop_the_run_and_change_nothing(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "in" / "log.csv", HEADER, *good_rows(9), row(click="7"))
    with pytest.raises(LogError, match=r"1 of 10 log rows are bad, more than the 5% allowed(?s:.*)log.csv, row 11: click"):
        run(log_config(), home, tmp_path / "in")
    assert not list(home.rglob("*.parquet"))
    assert not list(home.rglob("*.jsonl"))
    assert run(log_config(ingest={"max_bad_share": 0.1}), home, tmp_path / "in").kept == 9


def test_one_file_that_is_mostly_bad_stops_the_run(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "in" / "log_a.csv", HEADER, *good_rows(100))
    write_lines(tmp_path / "in" / "log_b.csv", HEADER, row(click="7"), row(click="8"), row("u2"))
    with pytest.raises(LogError, match=r"2 of 3 rows of .*log_b.csv are bad"):
        run(log_config(), home, tmp_path / "in")
