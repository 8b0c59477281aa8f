"""The report: one page without a request, with its figures, for every state they can be in."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_training_figures import _config, _day

from data.columns import Strings
from training import charts, verdicts
from training.charts import ForestRow, Line
from training.figures import evaluate
from training.report import document, render, write_report

VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Balanced(HTMLParser):
    """Fails on a tag closed out of turn; collects the attributes that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href", "data", "action")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page(report: dict[str, Any]) -> tuple[str, _Balanced]:
    html = render(report)
    parser = _Balanced()
    parser.feed(html)
    assert parser.open == []
    return html, parser


def _figures(**changes: Any) -> dict[str, Any]:
    day = _day(3)
    return {
        "bundle": 2026050200,
        "window": {"first_day": "2026-04-25", "last_day": "2026-05-02"},
        "seed": 3,
        "libraries": {"keras": "3.15.0"},
        "slates": "proxy: user_id, day",
        "position": "session ordinal (a proxy)",
        "undated_tables": ["videos"],
        **evaluate([day, _day(4)], _config()),
        **changes,
    }


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return document(_figures(), _config())


def test_the_page_has_its_figures(report: dict[str, Any]) -> None:
    html, _ = _page(report)
    click = report["objectives"]["click"]
    for metric in ("auc", "gauc", "log_loss", "predicted_over_actual", "ece"):
        assert f"<b>{click[metric]:.4f}</b>" in html
    low, high = click["auc_interval"]
    assert f"{low:.4f} to {high:.4f}" in html
    assert f"<b>{report['objectives']['watch_time']['order_accuracy']:.4f}</b>" in html
    for text in (
        "2026050200",
        "2026-04-25 to 2026-05-02",
        "2026-05-03 to 2026-05-04",
        "keras 3.15.0",
        "videos table is undated",
    ):
        assert text in html
    assert "proxy: user_id, day" in html
    assert "session ordinal" in html
    assert "polarized" in html


def test_the_page_is_self_contained(report: dict[str, Any]) -> None:
    html, parser = _page(report)
    assert all(link.startswith("#") for link in parser.links)
    assert not {"script", "link", "img", "iframe"} & set(parser.tags)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not re.search(r"url\(", html)
    for anchor in parser.links:
        assert f'id="{anchor[1:]}"' in html


def test_every_plot_is_described(report: dict[str, Any]) -> None:
    html, _ = _page(report)
    plots = re.findall(r'<svg viewBox="0 0 360[^>]*>', html)
    assert len(plots) == 6  # by day, calibration, slices, for two objectives
    assert all('role="img"' in plot and 'aria-label="' in plot for plot in plots)


def test_the_page_is_a_function_of_the_json(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(_figures(), _config(), tmp_path / "deep" / "report.html", tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored == report
    assert render(stored) == (tmp_path / "deep" / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "report.json"]


def test_names_from_the_logs_are_escaped() -> None:
    evil = '</svg><script>alert("x")</script>&'
    day = replace(_day(3), slices={"tab": Strings.of([evil if i % 2 else "$a_b$" for i in range(300)])})
    html, parser = _page(document(_figures(**evaluate([day], _config(10)), notes=[evil]), _config()))
    assert "script" not in parser.tags
    assert "&lt;/svg&gt;&lt;scri" in html
    assert "$a_b$" in html


def test_all_null() -> None:
    html, _ = _page(document({"bundle": None, **evaluate([], _config())}, _config()))
    assert "no rows" in html
    assert "Reported days</dt><dd>none" in html
    assert "0 of 2 objectives" in html
    day = replace(_day(3), targets=np.full((300, 2), np.nan, np.float32), baselines={}, is_exploration=None)
    html, _ = _page(document({"bundle": None, **evaluate([day], _config(0))}, _config()))
    assert "None were given" in html


def test_a_single_expert_and_none_are_explained() -> None:
    one = replace(_day(3), utilisation=np.ones((2, 1)))
    assert "its gate has no choice" in _page(document({"bundle": 1, **evaluate([one], _config(0))}, _config()))[0]
    none = replace(_day(3), utilisation=np.zeros((2, 0)))
    assert "the trunk has no experts" in _page(document({"bundle": 1, **evaluate([none], _config(0))}, _config()))[0]


def test_the_training_days_are_drawn_when_they_are_there(report: dict[str, Any]) -> None:
    assert "While training" not in render(report)
    with_curve = {**report, "progressive": {"by_day": report["by_day"]}}
    assert "While training" in _page(with_curve)[0]


def test_a_figure_that_is_not_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(_figures(rows=float("nan")), _config(), tmp_path / "r.html", tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def _objective(value: float | None, bounds: list[float] | None, **changes: Any) -> dict[str, Any]:
    difference = {
        "auc": value,
        "auc_interval": bounds,
        "gauc": None,
        "gauc_interval": None,
        "undefined": {"gauc": "no slates"},
    }
    base = {"kind": "binary", "count": 9000, "positives": 3000, "predicted_over_actual": 1.0}
    return {
        **base,
        "predicted_over_actual_interval": [0.9, 1.1],
        "baselines": {"video_rate": {"difference": difference}},
        **changes,
    }


@pytest.mark.parametrize(
    ("value", "bounds", "verdict", "text"),
    [
        (0.02, [0.01, 0.03], "better", "AUC better than each video's past rate"),
        (-0.02, [-0.03, -0.01], "worse", "AUC worse than each video's past rate"),
        (0.01, [-0.01, 0.03], "noise", "the difference is noise"),
        (None, None, "unknown", "no verdict"),
        (0.1, None, "unknown", "no verdict"),
    ],
)
def test_verdicts(value: float | None, bounds: list[float] | None, verdict: str, text: str) -> None:
    found = verdicts.compare(_objective(value, bounds), "video_rate", "auc")
    assert found.verdict == verdict
    assert text in found.text
    assert verdicts.compare(_objective(value, bounds), "video_rate", "gauc").size == "no slates"


def test_the_summary_names_what_does_not_win() -> None:
    objectives = {
        "click": _objective(0.02, [0.01, 0.03]),
        "like": _objective(0.0, [-0.01, 0.01]),
        "hate": _objective(-0.02, [-0.03, -0.01]),
        "follow": _objective(None, None),
    }
    text = verdicts.summary(objectives)
    assert text.startswith("1 of 4 objectives")
    assert "worse than one: hate" in text
    assert "noise: like" in text
    assert "no verdict: follow" in text


def test_starved_and_miscalibrated_objectives_are_flagged() -> None:
    assert verdicts.warnings(_objective(0.1, [0, 1])) == []
    assert verdicts.warnings(_objective(0.1, [0, 1], positives=158)) == ["158 positives: read with care"]
    assert verdicts.warnings(_objective(0.1, [0, 1], positives=1)) == ["1 positive: read with care"]
    assert verdicts.warnings(_objective(0.1, [0, 1], positives=8950)) == ["50 negatives: read with care"]
    high = _objective(0.1, [0, 1], predicted_over_actual=1.3, predicted_over_actual_interval=[1.2, 1.4])
    assert verdicts.warnings(high) == ["predictions are too high: 1.30 times the actual"]


def test_ticks_hold_their_range() -> None:
    assert charts.linear_ticks(0.61, 0.78) == [0.6, 0.65, 0.7, 0.75, 0.8]
    assert charts.linear_ticks(0.5, 0.5)[0] < 0.5 < charts.linear_ticks(0.5, 0.5)[-1]
    assert charts.linear_ticks(0, 0) == sorted(charts.linear_ticks(0, 0))
    assert charts.log_ticks(0.003, 0.09) == [0.002, 0.005, 0.01, 0.02, 0.05, 0.1]
    assert charts.log_ticks(0.01, 0.01)[0] <= 0.01 <= charts.log_ticks(0.01, 0.01)[-1]
    rng = np.random.default_rng(0)
    for low, width in zip(rng.normal(0, 10, 50), rng.exponential(1, 50) * 10.0 ** rng.integers(-6, 6, 50), strict=True):
        ticks = charts.linear_ticks(low, low + width)
        assert ticks[0] <= low + 1e-9 * abs(low)
        assert ticks[-1] >= low + width - 1e-9 * abs(low)
        assert 2 <= len(ticks) <= 9


def test_plots_of_nothing_and_of_gaps() -> None:
    assert charts.lines("x", [], []) is None
    assert charts.lines("x", ["2026-05-03"], [Line("m", [None], [None], "model")]) is None
    one = charts.lines("x", ["2026-05-03"], [Line("m", [0.7], [[0.6, 0.8]], "model")])
    assert one is not None
    assert "whisker" in one  # one day has no band
    days = [f"2026-05-0{i}" for i in range(1, 6)]
    gap = charts.lines(
        "x", days, [Line("m", [0.7, 0.7, None, 0.7, 0.7], [[0.6, 0.8]] * 2 + [None] + [[0.6, 0.8]] * 2, "model")]
    )
    assert gap is not None
    assert gap.count("<polyline") == 2
    assert gap.count("<polygon") == 2
    assert charts.forest("x", [ForestRow("all")], None) is None
    assert charts.calibration("x", []) is None


def test_a_bin_without_a_positive_is_hollow_on_log_axes() -> None:
    rows = {"count": 10, "positives": 1}
    bins = [{"predicted": p, "actual": a, "actual_interval": [0, 2 * a], **rows} for p, a in ((0.001, 0.0), (0.1, 0.08))]
    svg = charts.calibration("x", bins)
    assert svg is not None
    assert "predicted (log)" in svg
    assert svg.count("hollow") == 1
    assert "line raw" not in svg
    both = charts.calibration("x", bins, [{**b, "predicted": b["predicted"] / 2} for b in bins])
    assert both is not None
    assert both.count('<polyline class="line raw"') == 1
