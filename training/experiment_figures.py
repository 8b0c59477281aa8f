"""The figures of an experiment as plain values, and what they allow to be said of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data.experiments import Experiment
from training import experiment_sample_ratio as check
from training.experiment_analysis import Effect, MetricResult, Plan, analyse
from training.experiment_load import Loaded
from training.experiment_metrics import WATCH_TIME
from training.experiment_sample_ratio import SampleRatio, sample_ratio

Figures = dict[str, Any]
Verdict = Literal["better", "worse", "noise", "unknown"]

PRIMARY = WATCH_TIME.name
"""The metric that decides; the others are read beside it."""


def plan_of(experiment: Experiment) -> Plan:
    return Plan(
        shares=[arm.share for arm in experiment.arms],
        control=experiment.arms.index(experiment.control),
        planned=experiment.days,
    )


def figures(experiment: Experiment, loaded: Loaded) -> Figures:
    """Everything that the report shows. ``winner`` is null where none may be named; ``says`` says why."""
    plan = plan_of(experiment)
    ratio = sample_ratio(loaded.frame.entered, loaded.frame.arm, plan.shares, plan.planned)
    days = [day.isoformat() for day in loaded.days]
    metrics = [_metric(result, experiment, plan, days, ratio.failed) for result in analyse(loaded.frame, plan)]
    result: Figures = {
        "experiment": experiment.model_dump(mode="json"),
        "days": days,
        "planned_days": plan.planned,
        "history_days": loaded.history_days,
        "level": plan.level,
        "level_each": plan.level_each,
        "users": len(loaded.frame),
        "moved": loaded.moved,
        "elsewhere": loaded.elsewhere,
        "arms": _arms(experiment, ratio),
        "sample_ratio": _sample_ratio(ratio, days),
        "metrics": metrics,
        "notes": list(loaded.notes),
    }
    return result | _decision(result)


def _arms(experiment: Experiment, ratio: SampleRatio) -> list[Figures]:
    return [
        {
            "name": arm.name,
            "control": arm.control,
            "share": arm.share,
            "users": int(ratio.users[place, -1]),
            "expected": float(ratio.expected[place, -1]),
        }
        for place, arm in enumerate(experiment.arms)
    ]


def _sample_ratio(ratio: SampleRatio, days: Sequence[str]) -> Figures:
    return {
        "level": check.LEVEL,
        "failed": ratio.failed,
        "failed_on": None if ratio.failed_at is None else days[ratio.failed_at],
        "statistic": _number(ratio.statistic[-1]),
        "bound": _number(ratio.bounds[-1]),
        "p_value": _number(ratio.p_value[-1]),
        "users_by_day": {day: ratio.users[:, look].tolist() for look, day in enumerate(days)},
    }


def _metric(result: MetricResult, experiment: Experiment, plan: Plan, days: Sequence[str], spoilt: bool) -> Figures:
    of, names = result.metric, [arm.name for arm in experiment.arms]
    compared = {effect.treatment: _effect(effect, days, spoilt) for effect in result.effects}
    return {
        "name": of.name,
        "unit": of.unit,
        "better": of.better,
        "levels": {name: _number(result.of.plain[place, -1]) for place, name in enumerate(names)},
        "against_control": {names[k]: compared.get(k) for k in plan.treatments},
    }


def _effect(effect: Effect, days: Sequence[str], spoilt: bool) -> Figures:
    """``interval`` may be looked at daily; ``fixed`` holds for one look alone. All are treatment minus control."""
    of, error = effect.of, effect.of.error
    found = None if effect.found_at is None else days[effect.found_at]
    return {
        "difference": float(of.delta[-1]),
        "error": float(error[-1]),
        "interval": effect.interval(-1),
        "relative": _ratio(of.delta[-1], of.level[-1]),
        "relative_interval": effect.relative_interval(-1),
        "fixed": {
            "interval": effect.interval(-1, daily=False),
            "relative_interval": effect.relative_interval(-1, daily=False),
            "p_value": effect.p_value,
        },
        "bound": _number(effect.bounds[-1]),
        "adjusted": effect.adjusted,
        "narrowed": effect.narrowed,
        "first_found_on": found,
        "verdict": "unknown" if spoilt else _verdict(effect),
        "by_day": [
            {
                "day": days[look],
                "relative": _ratio(of.delta[place], of.level[place]),
                "relative_interval": effect.relative_interval(place),
            }
            for place, look in enumerate(effect.looks.tolist())
        ],
    }


def _verdict(effect: Effect) -> Verdict:
    """By the last daily interval."""
    bounds = effect.interval(-1)
    if bounds is None:
        return "unknown"
    low, high = (bounds[0], bounds[1]) if effect.metric.better > 0 else (-bounds[1], -bounds[0])
    return "better" if low > 0 else "worse" if high < 0 else "noise"


def _decision(report: Mapping[str, Any]) -> Figures:
    ratio = report["sample_ratio"]
    if ratio["failed"]:
        counts = ", ".join(f"{arm['name']} {arm['users']:,} instead of {arm['expected']:,.0f}" for arm in report["arms"])
        return {
            "winner": None,
            "says": f"No winner can be named: the arms do not have the users that their shares promise ({counts}; failed on "
            f"{ratio['failed_on']}). Something sends or loses users differently by arm; until it is found, no "
            "difference below can be believed.",
        }
    primary = next((metric for metric in report["metrics"] if metric["name"] == PRIMARY), None)
    effects = {} if primary is None else {arm: e for arm, e in primary["against_control"].items() if e is not None}
    better = {arm: e for arm, e in effects.items() if e["verdict"] == "better"}
    if not better:
        return {"winner": None, "says": _undecided(report, effects)}
    winner = max(better, key=lambda arm: float(better[arm]["difference"]))
    says = f"{winner} beats the control in {PRIMARY}: {_size(better[winner])}."
    if len(better) > 1:
        says += f" So do others ({', '.join(sorted(set(better) - {winner}))}), which are not compared with it."
    worse = [m["name"] for m in report["metrics"] if (m["against_control"][winner] or {}).get("verdict") == "worse"]
    return {"winner": winner, "says": says + (f" But it is worse in {', '.join(worse)}." if worse else "")}


def _undecided(report: Mapping[str, Any], effects: Mapping[str, Figures]) -> str:
    if not effects:
        return f"No winner yet: {PRIMARY} cannot be compared (too few users, or no such label)."
    worse = [arm for arm, effect in effects.items() if effect["verdict"] == "worse"]
    if len(worse) == len(effects):
        sizes = "; ".join(f"{arm} {_size(effects[arm])}" for arm in worse)
        return f"The control wins: {PRIMARY} is worse in every treatment ({sizes})."
    done, planned = len(report["days"]), report["planned_days"]
    sizes = "; ".join(f"{arm} {_size(effect)}" for arm, effect in effects.items())
    when = "after all planned days" if done == planned else f"after day {done} of {planned}"
    return f"No winner {when}: the difference in {PRIMARY} may be noise ({sizes})."


def _size(effect: Mapping[str, Any]) -> str:
    if effect["relative"] is None or effect["relative_interval"] is None:
        return f"{effect['difference']:+.4g}"
    low, high = effect["relative_interval"]
    return f"{effect['relative']:+.2%} ({low:+.2%} to {high:+.2%})"


def _ratio(top: float, bottom: float) -> float | None:
    return float(top / bottom) if bottom else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
