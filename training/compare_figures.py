"""What a comparison says: means and spreads over seeds, paired differences with their intervals, negative transfer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from training.bootstrap import LEVEL, Floats, interval, over_seeds
from training.verdicts import Verdict, headline_metrics

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("auc", "gauc", "log_loss"),
    "regression": ("order_accuracy", "slate_order_accuracy", "mae"),
}
"""What is shown of an objective, the headline first."""
SMALLER_IS_BETTER = ("log_loss", "mae", "mse", "ece")
NORMAL = 1.959964
SEED = 2  # of the draws of training seeds

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one cell found: its figures, and the samples [R] of each metric, by ``objective/metric``."""

    figures: Figures
    samples: Mapping[str, Floats]

    @classmethod
    def load(cls, folder: Path) -> "Outcome":
        with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
            return cls(json.loads((folder / "result.json").read_text()), {name: arrays[name] for name in arrays.files})

    def value(self, objective: str, metric: str) -> float | None:
        found = self.figures["objectives"].get(objective, {}).get(metric)
        return None if found is None else float(found)


Outcomes = Sequence[Outcome]
"""A design's, one per seed; all designs' in the same order of seeds."""


def compare(
    designs: Mapping[str, Outcomes], only: Mapping[str, Outcomes], baseline: str, kinds: Mapping[str, str]
) -> Figures:
    """The figures of every design, and those against the baseline and against the single-task networks.

    Args:
        designs: the variants' outcomes by name.
        only: the outcomes of each objective's single-task network, where there is one.
        kinds: each objective's, by name.
    """
    return {
        "variants": {
            name: {
                "objectives": {o: levels(outcomes, o, kind) for o, kind in kinds.items()},
                "against_baseline": None if name == baseline else differences(outcomes, designs[baseline], kinds),
                "against_single_task": {
                    o: _transfer(difference(outcomes, only[o], o, headline_metrics(kinds[o])[0])) for o in only
                },
                **about(outcomes),
            }
            for name, outcomes in designs.items()
        },
        "single_task": {
            o: {"objectives": {o: levels(outcomes, o, kinds[o])}, **about(outcomes)} for o, outcomes in only.items()
        },
    }


def levels(outcomes: Outcomes, objective: str, kind: str) -> dict[str, Any]:
    """Per metric its mean over seeds, their standard deviation, and each seed's value."""
    result = {}
    for metric in METRICS[kind]:
        values = [outcome.value(objective, metric) for outcome in outcomes]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        result[metric] = {
            "mean": float(np.mean(known)) if whole else None,
            "deviation": float(np.std(known, ddof=1)) if whole and len(known) > 1 else None,
            "by_seed": values,
        }
    return result


def differences(outcomes: Outcomes, other: Outcomes, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Per objective and metric, a design minus another."""
    return {o: {m: difference(outcomes, other, o, m) for m in METRICS[kind]} for o, kind in kinds.items()}


def difference(outcomes: Outcomes, other: Outcomes, objective: str, metric: str) -> dict[str, Any]:
    """The mean difference over seeds, its paired interval over users and seeds, and the verdict."""
    ours, theirs = ([outcome.value(objective, metric) for outcome in side] for side in (outcomes, other))
    if None in ours or None in theirs:
        return {"mean": None, "interval": None, "verdict": "unknown"}
    gaps = np.array(ours, np.float64) - np.array(theirs, np.float64)
    key, bounds = f"{objective}/{metric}", None
    if all(key in outcome.samples for outcome in (*outcomes, *other)):
        bounds = interval(paired(*(np.stack([o.samples[key] for o in side]) for side in (outcomes, other))))[0]
    mean = float(gaps.mean())
    return {
        "mean": mean,
        "interval": None if bounds is None else list(bounds),
        "verdict": verdict(bounds, metric in SMALLER_IS_BETTER),
    }


def paired(ours: Floats, theirs: Floats) -> Floats:
    """Samples [R] of the mean over seeds of a difference, users and seeds resampled together, paired by both.

    ``ours`` and ``theirs`` [S, R] are under the same resamples of users. Seeds are few: drawn with replacement, S of them
    spread sqrt((S - 1) / S) as much as they should, and a normal interval is too short for them. So what the seeds add to
    the resamples is widened by sqrt(S / (S - 1)) and by Student's t over the normal quantile: with users that do not
    matter the interval is about the t interval over seeds; with one seed it is the users' alone.
    """
    gaps = ours - theirs
    seeds = len(gaps)
    users = gaps.mean(axis=0)
    if seeds == 1:
        return np.asarray(users)
    wide = np.sqrt(seeds / (seeds - 1)) * student.ppf((1 + LEVEL) / 2, seeds - 1) / NORMAL
    return np.asarray(users + wide * (over_seeds(gaps, SEED) - users))


def verdict(bounds: Sequence[float] | None, smaller_is_better: bool = False) -> Verdict:
    """Better, worse, or noise where the interval holds 0."""
    if bounds is None:
        return "unknown"
    if bounds[0] <= 0 <= bounds[1]:
        return "noise"
    return "better" if (bounds[0] > 0) != smaller_is_better else "worse"


def _transfer(found: dict[str, Any]) -> dict[str, Any]:
    """Negative transfer: worse than the network that learns this objective alone, by more than the interval."""
    return {**found, "negative_transfer": None if found["verdict"] == "unknown" else found["verdict"] == "worse"}


def about(outcomes: Outcomes) -> dict[str, Any]:
    """What seeds share or average: cost, gates, gradients."""
    return {"cost": _cost(outcomes), "gates": _gates(outcomes), "gradient_cosines": _cosines(outcomes)}


def _cost(outcomes: Outcomes) -> dict[str, float | None]:
    found = [outcome.figures["cost"] for outcome in outcomes]
    means: dict[str, float | None] = {}
    for key in found[0]:
        values = [cost[key] for cost in found]
        means[key] = None if None in values else float(np.mean(values))
    return means


def _gates(outcomes: Outcomes) -> dict[str, Any]:
    """Utilisation of the first seed (experts of two seeds are not the same ones), and how many seeds polarized."""
    found = [outcome.figures["gates"] for outcome in outcomes]
    judged = [gates["polarized"] for gates in found if gates["polarized"] is not None]
    return {**found[0], "polarized_seeds": sum(judged) if judged else None, "seeds": len(found)}


def _cosines(outcomes: Outcomes) -> dict[str, list[list[float | None]]]:
    """By day, the mean over seeds [K, K]; None where no seed has it."""
    by_day: dict[str, list[list[float | None]]] = {}
    for day, first in outcomes[0].figures["gradient_cosines"].items():
        matrices = [outcome.figures["gradient_cosines"].get(day) for outcome in outcomes]
        if first is not None:
            stack = np.array([m for m in matrices if m is not None], np.float64)
            by_day[day] = [[_mean(stack[:, i, j]) for j in range(stack.shape[2])] for i in range(stack.shape[1])]
    return by_day


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def summary(figures: Figures, kinds: Mapping[str, str], baseline: str) -> Iterator[str]:
    """What stands out, in sentences: who is better and worse on which headline metric; the rest is noise."""
    if figures["variants"][baseline]["gates"]["seeds"] == 1:
        yield "One seed: what follows holds for this one training of each network; another seed may say otherwise."
    rivals = {name: v["against_baseline"] for name, v in figures["variants"].items() if v["against_baseline"] is not None}
    for objective, kind in kinds.items():
        groups: dict[str, list[str]] = {"better": [], "worse": [], "noise": [], "unknown": []}
        for name, found in rivals.items():
            groups[found[objective][headline_metrics(kind)[0]]["verdict"]].append(name)
        parts = [f"{', '.join(groups[word])} {word}" for word in ("better", "worse") if groups[word]]
        if groups["noise"]:
            everyone = len(groups["noise"]) == len(rivals)
            parts.append("every difference is noise" if everyone else f"{len(groups['noise'])} not told apart (noise)")
        if groups["unknown"]:
            parts.append(f"no verdict on {', '.join(groups['unknown'])}")
        if parts:
            yield f"{objective}, against {baseline}: {'; '.join(parts)}."
    if figures["single_task"]:
        flags = {
            name: [o for o, found in variant["against_single_task"].items() if found["negative_transfer"]]
            for name, variant in figures["variants"].items()
        }
        hurt = [f"{name} ({', '.join(objectives)})" for name, objectives in flags.items() if objectives]
        yield f"Negative transfer: {', '.join(hurt) if hurt else 'none that is more than noise'}."
