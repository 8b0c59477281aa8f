"""What the figures say, in words: the model against its baselines, and what to read with care."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from training.baselines import CHAMPION, CONSTANT, VIDEO_RATE

Figures = Mapping[str, Any]
Verdict = Literal["better", "worse", "noise", "unknown"]

FEW = 200  # positives or negatives under which a figure is flagged: the standard error of AUC is then 0.02 and more
BASELINE_TEXT = {
    CONSTANT: "the rate before the day",
    VIDEO_RATE: "each video's past rate",
    CHAMPION: "the previous champion",
}
METRIC_TEXT = {
    "auc": "AUC",
    "gauc": "GAUC",
    "order_accuracy": "Order accuracy",
    "slate_order_accuracy": "Order accuracy in the slate",
}


@dataclass(frozen=True)
class Comparison:
    """One metric of the model minus a baseline's: as one word, in words, and the difference with its interval."""

    baseline: str
    metric: str
    verdict: Verdict
    text: str
    size: str


def headline_metrics(kind: str) -> tuple[str, str]:
    """The metric over all rows and the one within the slate that sum up an objective of this kind; more is better."""
    return ("auc", "gauc") if kind == "binary" else ("order_accuracy", "slate_order_accuracy")


def compare(objective: Figures, baseline: str, metric: str) -> Comparison:
    """The verdict on one difference: its interval above 0, below, or around it."""
    name = BASELINE_TEXT.get(baseline, baseline)
    difference = objective["baselines"][baseline]["difference"]
    value, bounds = difference[metric], difference[f"{metric}_interval"]
    label = METRIC_TEXT[metric]
    if value is None or bounds is None:
        reason = difference["undefined"].get(metric) or difference["undefined"].get(f"{metric}_interval") or "undefined"
        return Comparison(baseline, metric, "unknown", f"{label} against {name}: no verdict", reason)
    size = f"{signed(value)} ({signed(bounds[0])} to {signed(bounds[1])})"
    if bounds[0] > 0:
        return Comparison(baseline, metric, "better", f"{label} better than {name}", size)
    if bounds[1] < 0:
        return Comparison(baseline, metric, "worse", f"{label} worse than {name}", size)
    return Comparison(baseline, metric, "noise", f"{label} against {name}: the difference is noise", size)


def comparisons(objective: Figures) -> list[Comparison]:
    """Both headline metrics against every baseline but the constant, which has no order (it stands in alone)."""
    names = [name for name in objective["baselines"] if name != CONSTANT] or list(objective["baselines"])
    return [compare(objective, name, metric) for name in names for metric in headline_metrics(objective["kind"])]


def warnings(objective: Figures) -> list[str]:
    """What to keep in mind when reading this objective's figures."""
    found = []
    positives, negatives = objective["positives"], objective["count"] - objective["positives"]
    if not objective["count"]:
        return ["no rows"]
    if positives < FEW:
        found.append(f"{positives:,} positive{'' if positives == 1 else 's'}: read with care")
    elif objective["kind"] == "binary" and negatives < FEW:
        found.append(f"{negatives:,} negative{'' if negatives == 1 else 's'}: read with care")
    bounds = objective["predicted_over_actual_interval"]
    if bounds is not None and (bounds[0] > 1.1 or bounds[1] < 0.9):
        way = "too high" if bounds[0] > 1.1 else "too low"
        found.append(f"predictions are {way}: {objective['predicted_over_actual']:.2f} times the actual")
    return found


def summary(objectives: Mapping[str, Figures]) -> str:
    """One sentence over all objectives: how many beat all their baselines, and which do not."""
    groups: dict[Verdict, list[str]] = {"better": [], "worse": [], "noise": [], "unknown": []}
    for name, objective in objectives.items():
        found = {c.verdict for c in comparisons(objective) if c.metric == headline_metrics(objective["kind"])[0]}
        verdicts: tuple[Verdict, ...] = ("worse", "noise", "unknown")
        groups[next((verdict for verdict in verdicts if verdict in found), "better" if found else "unknown")].append(name)
    parts = [f"{len(groups['better'])} of {len(objectives)} objectives beat all their baselines over all rows"]
    if groups["worse"]:
        parts.append(f"worse than one: {', '.join(groups['worse'])}")
    if groups["noise"]:
        parts.append(f"a difference that is noise: {', '.join(groups['noise'])}")
    if groups["unknown"]:
        parts.append(f"no verdict: {', '.join(groups['unknown'])}")
    return "; ".join(parts) + "."


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
