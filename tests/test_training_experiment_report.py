"""From what was served to the report: who counts, which days, what may be said, and both commands."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from rich.console import Console
from typer.testing import CliRunner

import watchnext
from data.database import writing
from data.errors import ConfigError, LogError
from data.experiments import assign
from data.feedback.export import export_days
from data.feedback.schema import events, served
from tests.experiment_world import (
    DAY,
    HOUR,
    START,
    World,
    experiment,
    forget_day,
    make_world,
    write_files,
    write_partition,
)
from training.experiment_commands import open_source, power, report
from training.experiment_load import load
from training.experiment_report import render, tables, write_report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three days before and four of an experiment whose treatment doubles watch time."""
    return make_world(tmp_path_factory.mktemp("world"), experiment(), first=-3, lift=2.0)


def sums(world: World, arm: str, days: range) -> dict[str, float]:
    """By hand: per arm the users who came, and their totals."""
    rows = [row for row in world.rows if row[1] in days and (a := assign(experiment(), row[0])) and a.name == arm]
    viewed = [row for row in rows if row[2]]
    users = {row[0] for row in rows}
    return {
        "users": len(users),
        "watch time by user": sum(row[4] for row in viewed) / len(users),
        "impressions by user": len(viewed) / len(users),
        "active days by user": len({row[:2] for row in viewed}) / len(users),
        "click rate": sum(row[3] for row in viewed) / len(viewed),
        "watch time by impression": sum(row[4] for row in viewed) / len(viewed),
    }


def test_levels_are_the_sums_by_hand(world: World) -> None:
    figures = report(experiment(), world.source())
    for arm in ("control", "arm_1"):
        by_hand = sums(world, arm, range(4))
        assert next(a["users"] for a in figures["arms"] if a["name"] == arm) == by_hand.pop("users")
        levels = {metric["name"]: metric["levels"][arm] for metric in figures["metrics"]}
        for name, value in by_hand.items():
            assert levels[name] == pytest.approx(value), name
    assert {"like rate", "dismissal rate"} <= {metric["name"] for metric in figures["metrics"]}


def test_a_doubled_watch_time_wins(world: World) -> None:
    figures = report(experiment(), world.source())
    assert figures["winner"] == "arm_1"
    assert figures["says"].startswith("arm_1 beats the control in watch time by user: +")
    effect = figures["metrics"][0]["against_control"]["arm_1"]
    assert effect["relative_interval"][0] < 1.0 < effect["relative_interval"][1]
    assert effect["adjusted"]
    assert effect["narrowed"] > 0.1
    assert effect["by_day"][-1]["relative_interval"] == effect["relative_interval"]
    assert [look["day"] for look in effect["by_day"]] == figures["days"]
    clicks = next(m for m in figures["metrics"] if m["name"] == "click rate")["against_control"]["arm_1"]
    assert clicks["verdict"] == "noise"


def test_no_difference_is_no_winner(tmp_path: Path) -> None:
    same = make_world(tmp_path, experiment(), first=-3)
    figures = report(experiment(), same.source())
    assert figures["winner"] is None
    assert "may be noise" in figures["says"]
    assert "after all planned days" in figures["says"]
    assert "after day 2 of 4" in report(experiment(), same.source(START + 2 * DAY + 3 * HOUR))["says"]


def test_a_worse_treatment_loses(tmp_path: Path) -> None:
    figures = report(experiment(), make_world(tmp_path, experiment(), first=-3, lift=0.3).source())
    assert figures["winner"] is None
    assert figures["says"].startswith("The control wins")
    assert figures["metrics"][0]["against_control"]["arm_1"]["verdict"] == "worse"


def test_a_winner_that_annoys_is_named_with_what_it_costs(tmp_path: Path) -> None:
    figures = report(experiment(), make_world(tmp_path, experiment(), first=-3, lift=2.0, annoyed=0.2).source())
    assert figures["winner"] == "arm_1"
    assert figures["says"].endswith("But it is worse in dismissal rate.")
    dismissals = next(m for m in figures["metrics"] if m["name"] == "dismissal rate")["against_control"]["arm_1"]
    assert dismissals["difference"] > 0
    assert dismissals["verdict"] == "worse"


def test_of_several_winners_the_largest_is_named_with_the_others(tmp_path: Path) -> None:
    three = experiment((0.4, 0.3, 0.3))
    figures = report(three, make_world(tmp_path, three, users=500, first=-3, lift=2.5).source())
    effects = figures["metrics"][0]["against_control"]
    assert set(effects) == {"arm_1", "arm_2"}
    assert figures["level_each"] == 0.025
    assert figures["winner"] == max(effects, key=lambda arm: effects[arm]["difference"])
    assert "So do others (arm_" in figures["says"]
    assert "shared among the treatments" in render(figures)


def test_no_winner_when_the_sample_ratio_fails(world: World, tmp_path: Path) -> None:
    """The users are as before, but the file promises other shares."""
    figures = report(experiment((0.9, 0.1)), world.source())
    assert figures["sample_ratio"]["failed"]
    assert figures["winner"] is None
    assert figures["says"].startswith("No winner can be named: the arms do not have the users")
    verdicts = {e["verdict"] for m in figures["metrics"] for e in m["against_control"].values() if e is not None}
    assert verdicts == {"unknown"}
    assert figures["elsewhere"] > 0
    page = render(figures)
    assert "sample-ratio check FAILED on" in page
    assert 'chip better">better' not in page


def test_a_day_counts_once_its_windows_have_closed(world: World) -> None:
    end = START + 2 * DAY  # of the second day
    assert report(experiment(), world.source(end + 2 * HOUR - 1))["days"] == ["2026-11-01"]
    assert report(experiment(), world.source(end + 2 * HOUR))["days"] == ["2026-11-01", "2026-11-02"]
    with pytest.raises(LogError, match="no day of experiment 'trial' is final yet"):
        report(experiment(), world.source(START + DAY))


def test_what_was_known_on_a_day_does_not_change_later(world: World) -> None:
    """Looking daily is only allowed because a look that was taken stays as it was."""
    early = report(experiment(), world.source(START + 2 * DAY + 2 * HOUR))["metrics"][0]["against_control"]["arm_1"]
    late = report(experiment(), world.source())["metrics"][0]["against_control"]["arm_1"]
    assert len(early["by_day"]) == 2
    for before, after in zip(early["by_day"], late["by_day"], strict=False):
        assert after["relative"] == pytest.approx(before["relative"])
        assert after["relative_interval"] == pytest.approx(before["relative_interval"], rel=1e-4)


def test_who_saw_nothing_counts_too(world: World) -> None:
    frame = load(experiment(), world.source()).frame
    seen = {row[0] for row in world.rows if row[1] >= 0 and row[2]}
    came = {row[0] for row in world.rows if row[1] >= 0}
    one_day = load(experiment(), world.source(), until=None).days[:1]
    assert len(frame) == len(came) >= len(seen)
    first = load(experiment(), world.source(START + DAY + 2 * HOUR))
    assert first.days == one_day
    assert (first.frame.cumulative("impressions")[:, 0] == 0).any()


def test_a_user_of_two_arms_counts_for_the_first(tmp_path: Path) -> None:
    def names(user: str, day: int) -> tuple[str | None, str | None]:
        return "other,trial", f"x,{'control' if day == 0 or int(user[1:]) % 2 else 'arm_1'}"

    found = load(experiment(), make_world(tmp_path, experiment(), arm_names=names).source())
    assert 0 < found.moved < 150
    assert found.elsewhere > 50
    assert (found.frame.arm[found.frame.entry == 0] == 0).all()


def test_requests_of_other_experiments_do_not_count(tmp_path: Path) -> None:
    other = make_world(tmp_path, experiment(), arm_names=lambda user, day: ("other", "control"))
    with pytest.raises(LogError, match="nobody was served in experiment 'trial'"):
        report(experiment(), other.source())


def test_days_that_are_no_longer_in_the_database_come_from_the_log(tmp_path: Path) -> None:
    whole = make_world(tmp_path, experiment(), first=-3, lift=2.0)
    before = report(experiment(), whole.source())
    for day in (-3, -2, -1, 0):
        write_partition(whole, day, [row for row in whole.rows if row[1] == day])
        forget_day(whole, day)
    after = report(experiment(), whole.source())
    assert after["history_days"] == 3
    assert "follow from the salt" in after["notes"][0]
    one, other = (f["metrics"][3]["against_control"]["arm_1"] for f in (before, after))
    assert other["relative"] == pytest.approx(one["relative"], abs=1e-9)  # a ratio: who saw nothing adds nothing
    assert before["users"] - 10 < after["users"] <= before["users"]


def test_what_is_exported_gives_the_same_figures(tmp_path: Path) -> None:
    whole = make_world(tmp_path, experiment(), first=-3, lift=2.0)
    before = report(experiment(), whole.source())
    now = whole.source().as_of
    assert len(export_days(whole.config, whole.home, now, Console(quiet=True))) == 7
    with writing(whole.engine) as connection:  # only the log knows now what happened
        connection.execute(sa.delete(events).where(events.c.type == "watch_time"))
    assert report(experiment(), whole.source()) == before
    with writing(whole.engine) as connection:  # a request that was not exported: now only the database has all
        connection.execute(sa.update(served).where(served.c.request_id == "u0/1").values(rebuildable=False))
    assert report(experiment(), whole.source()) != before


def test_without_a_history_nothing_is_adjusted(tmp_path: Path) -> None:
    figures = report(experiment(), make_world(tmp_path, experiment()).source())
    assert figures["history_days"] == 0
    assert not figures["metrics"][0]["against_control"]["arm_1"]["adjusted"]
    assert "no day before the experiment" in render(figures)


def test_few_users_are_reported_without_a_verdict(tmp_path: Path) -> None:
    figures = report(experiment(), make_world(tmp_path, experiment(), users=60).source())
    assert figures["metrics"][0]["against_control"]["arm_1"] is None
    assert figures["winner"] is None
    assert "cannot be compared" in figures["says"]
    assert "too few users" in render(figures)
    assert len(list(tables(figures))) == 2


def test_the_page_stands_alone_and_the_figures_are_plain_json(world: World, tmp_path: Path) -> None:
    figures = report(experiment(), world.source())
    figures["notes"].append("<script>alert(1)</script>")
    write_report(figures, tmp_path / "x.html", tmp_path / "x.json")
    page = (tmp_path / "x.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(figures))
    assert page.count("<svg") > 5


def test_the_configuration_must_be_the_one_that_is_served(world: World) -> None:
    with pytest.raises(ConfigError, match="serves 'feed', the configuration is 'other'"):
        open_source(experiment(), world.home, world.config.model_copy(update={"name": "other"}), None)


def test_power_is_announced_from_the_days_before(world: World) -> None:
    later = experiment().model_copy(update={"start": "2026-11-05", "end": "2026-11-06"})
    figures = power(later, world.source(), 0.2)
    assert figures["days"] == ["2026-11-03", "2026-11-04"]
    assert figures["history_days"] == 3
    came = {row[0] for row in world.rows if row[1] in (2, 3) and row[2]}
    assert figures["users"] == len(came)
    watch, twice = (f["metrics"][0]["treatments"]["arm_1"] for f in (figures, power(later, world.source(), 0.2, 3000)))
    assert watch["least_effect"] > twice["least_effect"] > 0
    assert twice["least_effect"] == pytest.approx(watch["least_effect"] * np.sqrt(len(came) / 3000), rel=0.02)
    assert 0.05 < watch["daily"] < twice["daily"]


def test_power_without_enough_days_says_so(world: World) -> None:
    first = experiment().model_copy(update={"start": "2026-10-30", "end": "2026-11-02"})
    with pytest.raises(LogError, match="two or more final days of logs"):
        power(first, world.source(), 0.02)


def test_a_short_log_makes_a_short_rehearsal(world: World) -> None:
    longer = experiment().model_copy(update={"end": "2026-11-20", "history_days": 14})
    figures = power(longer, world.source(START + 30 * DAY), 0.2)
    assert (len(figures["days"]), figures["history_days"], figures["planned_days"]) == (2, 1, 20)


def test_the_commands_write_their_files(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHNEXT_HOME", str(world.home.root))
    config, trial = write_files(tmp_path, experiment())
    now = str(START + 30 * DAY)

    def run(*words: str) -> str:
        result = CliRunner().invoke(watchnext.app, ["experiment", *words, str(trial), "--config", str(config), "--now", now])
        assert result.exit_code == 0, result.output
        return result.output

    assert "least effect" in run("power")
    announced = json.loads((world.home.reports / "experiment-trial-power.json").read_text())
    assert announced["effect"] == 0.02
    said = run("report")
    assert "the power to find +2.00%" in said
    assert "arm_1 beats the control" in said.replace("\n", " ")
    assert (world.home.reports / "experiment-trial.html").is_file()
    figures = json.loads((world.home.reports / "experiment-trial.json").read_text())
    assert figures["winner"] == "arm_1"
    assert figures["announced"] == announced


def test_power_announced_for_another_plan_is_not_shown(world: World, tmp_path: Path) -> None:
    path = tmp_path / "power.json"
    path.write_text(json.dumps(power(experiment(), world.source(), 0.3)))
    shown = report(experiment(), world.source(), announced=path)
    assert shown["announced"]["effect"] == 0.3
    assert "Power to find +30.00%" in render(shown)
    assert report(experiment(history_days=2), world.source(), announced=path)["announced"] is None
    assert "no power was announced" in render(report(experiment(), world.source()))


def test_a_missing_champion_is_one_sentence(tmp_path: Path) -> None:
    _, trial = write_files(tmp_path, experiment())
    result = CliRunner().invoke(watchnext.app, ["experiment", "report", str(trial)])
    assert result.exit_code == 2
    assert "'feed' has no champion yet" in result.stderr
