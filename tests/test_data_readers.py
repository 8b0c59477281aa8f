"""Every format gives the same rows; columns become our types."""

import csv
import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ConfigError, LogError
from data.home import Home
from data.log import read_day, read_table
from data.readers import convert, csv_file
from data.readers.files import discover, matches
from data.readers.lines import read_blocks
from data.readers.table import read_chunks
from tests.ingest_logs import HEADER, T0, good_rows, log_config, rejected, row, run, write_lines

RICH: dict[str, Any] = {
    "log": {
        "files": ["log*"],
        "columns": {"user_id": "uid", "timestamp": "at", "is_exploration": "random"},
        "context": {"tab": {"type": "category"}, "tags": {"type": "categories"}, "battery": {"type": "number"}},
        "visible_after": "watch",
    },
    "labels": {"click": {"type": "binary"}, "watch": {"type": "number", "source": "ms", "scale": 0.001}},
}
FIRST = date(2024, 3, 1)


def rich_rows() -> list[dict[str, Any]]:
    return [
        {
            "uid": 7,
            "video_id": "a, b",
            "at": T0 + 5,
            "random": True,
            "tab": "x",
            "tags": ["p", "q"],
            "battery": 0.5,
            "click": 1,
            "ms": 957,
            "position": 3,
        },
        {
            "uid": 12,
            "video_id": 'say "hi"',
            "at": T0 + 6,
            "random": False,
            "tab": None,
            "tags": None,
            "battery": None,
            "click": None,
            "ms": None,
            "position": None,
        },
    ]


def as_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**r, "tags": ",".join(r["tags"] or [])} for r in rows])
    return folder


def as_gzip(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = as_csv(folder, rows) / "log.csv"
    (folder / "log.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return folder


def as_json(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_lines(folder / "log.jsonl", *(json.dumps({k: v for k, v in r.items() if v is not None}) for r in rows))
    return folder


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
    return folder


@pytest.mark.parametrize("write", [as_csv, as_gzip, as_json, as_parquet])
def test_every_format_gives_the_same_rows(tmp_path: Path, home: Path, write: Any) -> None:
    config = log_config(**RICH)
    summary = run(config, home, write(tmp_path / "in", rich_rows()))
    assert summary.set_aside == {}
    batch = read_day(Home(home), config, FIRST)
    assert batch.strings("user_id").tolist() == ["7", "12"]
    assert batch.strings("video_id").tolist() == ["a, b", 'say "hi"']
    assert batch.numbers("timestamp").tolist() == [T0 + 5, T0 + 6]
    assert batch.numbers("visible_at").tolist() == [T0 + 5 + 957, T0 + 6]
    assert batch.strings("tab").tolist() == ["x", None]
    assert batch.lists("tags").tolist() == [["p", "q"], []]
    np.testing.assert_array_equal(batch.numbers("is_exploration"), [1, 0])
    np.testing.assert_array_equal(batch.numbers("battery"), [0.5, np.nan])
    np.testing.assert_array_equal(batch.numbers("click"), [1, np.nan])
    np.testing.assert_array_equal(batch.numbers("watch"), [0.957, np.nan])
    np.testing.assert_array_equal(batch.numbers("position"), [3, np.nan])
    assert "request_id" not in batch
    assert "propensity" not in batch


def test_a_byte_order_mark_and_windows_line_breaks_are_fine(tmp_path: Path, home: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([HEADER, *good_rows(3), ""]).encode())
    assert run(log_config(), home, tmp_path).kept == 3
    assert rejected(home) == []


def test_line_numbers_run_through_all_blocks(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.csv", HEADER, *good_rows(50))
    blocks = list(read_blocks(path, block_bytes=200))
    assert len(blocks) > 5
    assert b"".join(block.text for block in blocks) == path.read_bytes()
    assert [block.first for block in blocks] == list(np.cumsum([1] + [b.text.count(b"\n") for b in blocks[:-1]]))


def test_the_fast_and_the_careful_way_agree(tmp_path: Path) -> None:
    lines = [row(tab='"a,""b"""'), row(tab=""), row(tab="ü")]
    path = write_lines(tmp_path / "log.csv", HEADER, *lines)
    (fast,) = read_chunks(path, ["tab", "user_id"])
    block = next(read_blocks(path))
    inner = type(block)(block.text.partition(b"\n")[2], 2, 0)
    careful = csv_file._by_line(inner, csv_file.column_names(path), ["tab", "user_id"])
    assert fast.columns.equals(careful.columns)
    assert fast.columns.column("tab").to_pylist() == ['a,"b"', None, "ü"]
    assert fast.rows.tolist() == careful.rows.tolist() == [2, 3, 4]
    assert fast.digests.tolist() == careful.digests.tolist()
    assert [fast.text(i) for i in range(3)] == [careful.text(i) for i in range(3)] == lines


def test_a_cut_gzip_file_loses_its_last_row(tmp_path: Path, home: Path) -> None:
    lines = [row(f"u{i}", f"v{i * 7919 % 997}", i) for i in range(5000)]
    whole = gzip.compress("\n".join([HEADER, *lines, ""]).encode())
    (tmp_path / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    summary = run(log_config(), home, tmp_path)
    assert 100 < summary.kept < 5000
    (line,) = rejected(home)
    assert (line["reason"], line["row"]) == ("truncated", summary.kept + 2)
    assert lines[summary.kept].startswith(line["text"])


def test_json_lines_that_are_no_objects_are_set_aside(tmp_path: Path, home: Path) -> None:
    good = [json.dumps(dict(zip(HEADER.split(","), line.split(","), strict=True))) for line in good_rows(9)]
    write_lines(tmp_path / "log.jsonl", *good, "[1]", "", '{"user_id": "u1", "vid', end="")
    run(log_config(ingest={"max_bad_share": 0.5}), home, tmp_path)
    assert [(line["reason"], line["row"]) for line in rejected(home)] == [("damaged", 10), ("truncated", 12)]


def test_rows_of_a_parquet_file_are_set_aside_whole(tmp_path: Path, home: Path) -> None:
    rows = [{**r, "note": "n"} for r in rich_rows()]
    rows[1]["click"] = 4
    as_parquet(tmp_path / "in", rows)
    run(log_config(**RICH, ingest={"max_bad_share": 0.5}), home, tmp_path / "in")
    (line,) = rejected(home)
    assert (line["row"], line["detail"]) == (2, "click: expected 0, 1, true or false")
    assert json.loads(line["text"]) == rows[1]


def test_numbers_of_text() -> None:
    values, bad = convert.number(pa.array(["1", "-2.5", "1e3", "+4", None, "x", ""]))
    assert values.to_pylist() == [1, -2.5, 1000, 4, None, None, None]
    assert bad.tolist() == [False] * 5 + [True, True]


def test_ids_of_numbers() -> None:
    assert convert.text(pa.array([12, None], pa.int64()))[0].to_pylist() == ["12", None]
    values, bad = convert.text(pa.array([12.0, None, 1.5, float("nan")]))
    assert values.to_pylist() == ["12", None, None, None]
    assert bad.tolist() == [False, False, True, True]
    assert convert.category(pa.array([12.0, 1.5]))[0].to_pylist() == ["12", "1.5"]


def test_times_in_every_unit() -> None:
    expected = [T0 + 123, None]
    for unit, text in [
        ("ms", T0 + 123),
        ("s", (T0 + 123) / 1000),
        ("us", T0 * 1000 + 123_999),
        ("ns", T0 * 10**6 + 123_999_999),
    ]:
        values, bad = convert.time(pa.array([str(text), None]), unit)  # type: ignore[arg-type]
        assert values.to_pylist() == expected, unit
        assert not bad.any()
    iso = ["2024-03-01T00:00:00.123Z", "2024-03-01T08:00:00.123999+08:00", "2024-03-01 00:00:00.123", "soon"]
    values, bad = convert.time(pa.array(iso), "iso")
    assert values.to_pylist() == [T0 + 123] * 3 + [None]
    assert bad.tolist() == [False] * 3 + [True]
    stamps = pa.array([datetime.fromtimestamp(T0 / 1000, UTC)], pa.timestamp("ns", "UTC"))
    assert convert.time(stamps, "iso")[0].to_pylist() == [T0]


def test_lists_of_texts() -> None:
    values, bad = convert.categories(pa.array(["67,11", None, " a , b,", ""]), ",")
    assert values.to_pylist() == [["67", "11"], None, ["a", "b"], None]
    assert not bad.any()
    assert convert.categories(pa.array([[1, 2], None, [3, None]]), ",")[0].to_pylist() == [["1", "2"], None, ["3"]]


def test_file_names_match_from_any_folder_on() -> None:
    assert matches("a/b/log_1.csv", ["log*"])
    assert matches("a/b/log_1.csv", ["b/*.csv"])
    assert not matches("logs/b/rows.csv", ["log*", "logs/*.csv"])
    assert not matches("a/catalog.csv", ["log*"])


def test_a_file_named_outright_is_a_log_whatever_its_name(tmp_path: Path, home: Path) -> None:
    path = write_lines(tmp_path / "impressions.csv", HEADER, row())
    assert [file.kind for file in discover(log_config(), [path])] == ["log"]
    with pytest.raises(LogError, match=r"no log files in .*expected names like log.*impressions.csv"):
        discover(log_config(), [tmp_path])


def test_a_tables_pattern_wins_over_the_logs(tmp_path: Path) -> None:
    write_lines(tmp_path / "logins" / "users.csv", "id")
    write_lines(tmp_path / "log.csv", HEADER)
    write_lines(tmp_path / ".hidden" / "log.csv", HEADER, row())
    config = log_config(log={"files": ["*.csv"]}, users={"files": ["users*"], "key": "id"})
    assert [(file.kind, file.name) for file in discover(config, [tmp_path])] == [
        ("log", "log.csv"),
        ("users", "logins/users.csv"),
    ]


def test_tables_in_every_format_dated_or_not(tmp_path: Path, home: Path) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row())
    write_lines(tmp_path / "users.csv", "id,age,city", "9,30,x", "10,,y", "9,31,z")
    pq.write_table(
        pa.table({"video_id": [2, 1, 1], "since": [T0, T0 + 1, T0], "tags": [["a"], None, ["b", "c"]]}),
        tmp_path / "videos.parquet",
    )
    config = log_config(
        users={
            "files": ["users.*"],
            "key": "id",
            "columns": {"age": {"type": "number"}, "town": {"type": "category", "source": "city"}},
        },
        videos={
            "files": ["videos.*"],
            "key": "video_id",
            "valid_from": "since",
            "columns": {"tags": {"type": "categories"}},
        },
    )
    summary = run(config, home, tmp_path)
    users, videos = read_table(Home(home), config, "users"), read_table(Home(home), config, "videos")
    assert users is not None
    assert users.strings("user_id").tolist() == ["10", "9"]
    np.testing.assert_array_equal(users.numbers("age"), [np.nan, 31])
    assert users.strings("town").tolist() == ["y", "z"]
    assert "valid_from" not in users
    assert videos is not None
    assert videos.strings("video_id").tolist() == ["1", "1", "2"]
    assert videos.numbers("valid_from").tolist() == [T0, T0 + 1, T0]
    assert videos.lists("tags").tolist() == [["b", "c"], [], ["a"]]
    assert summary.manifest.tables["users"] == {"rows": 2, "dated": False, "replaced": 1}
    assert any("users' table is undated" in note for note in summary.manifest.notes)
    assert not any("videos' table" in note for note in summary.manifest.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"log": {"columns": {"timestamp": "at"}}},
            r"log.csv has no column 'at' \(for 'timestamp'\); its columns are: user_id",
        ),
        ({"labels": {"like": {"type": "binary"}}}, r"log.csv has no column 'like'; its columns are: .*watch"),
        ({"log": {"context": {"tab": {"type": "category", "source": "page"}}}}, "no column 'page'"),
        ({"users": {"files": ["nobody.csv"], "key": "id"}}, "users' table but no file is called nobody.csv"),
    ],
)
def test_a_configuration_that_does_not_fit_names_the_column(
    tmp_path: Path, home: Path, changes: dict[str, Any], message: str
) -> None:
    write_lines(tmp_path / "log.csv", HEADER, row())
    with pytest.raises(ConfigError, match=message):
        run(log_config(**changes), home, tmp_path)
    assert not list(home.rglob("*.parquet"))


def test_files_that_cannot_be_read_are_errors(tmp_path: Path, home: Path) -> None:
    with pytest.raises(LogError, match="no such file or folder"):
        run(log_config(), home, tmp_path / "nowhere")
    write_lines(tmp_path / "a" / "log.parquet", "not Parquet")
    with pytest.raises(LogError, match=r"cannot read .*log.parquet"):
        run(log_config(), home, tmp_path / "a")
    write_lines(tmp_path / "b" / "log.csv", f"{HEADER},tab", row())
    with pytest.raises(LogError, match="two columns are called 'tab'"):
        run(log_config(), home, tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "log.csv").write_text("")
    with pytest.raises(LogError, match=r"no impressions in .*log.csv: they are empty"):
        run(log_config(), home, tmp_path / "c")
    write_lines(tmp_path / "d" / "log.csv.gz", "not gzip")
    with pytest.raises(LogError, match=r"cannot read .*log.csv.gz"):
        run(log_config(), home, tmp_path / "d")
