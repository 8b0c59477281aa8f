"""Predictions judged, and ours against each peer and the best of them: users and seeds resampled together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.quality_peers.window import Window
from training.bootstrap import interval
from training.compare_cell import judge_rows
from training.compare_figures import Outcome, Outcomes, difference, levels, paired
from training.metrics import auc, gauc

Scores = tuple[NDArray[Any], NDArray[Any]]
"""Of the judged rows, at row and at slate time [n, objectives], in any increasing scale."""
OURS = "ours"
METRICS = ("auc", "gauc")
GAUC_MARGIN = {"like": -0.02}
OTHER_GAUC_MARGIN = -0.005
"""How far below the best peer's the lower end of our GAUC may lie."""


def judge(window: Window, at_row: NDArray[Any], at_slate: NDArray[Any]) -> dict[str, dict[str, float]]:
    """AUC and GAUC of each judged objective, of scores [n, objectives]."""
    return {name: judge_one(window, k, at_row[:, k], at_slate[:, k]) for k, name in enumerate(window.objectives)}


def judge_one(window: Window, k: int, at_row: NDArray[Any], at_slate: NDArray[Any]) -> dict[str, float]:
    """AUC and GAUC of the k-th judged objective, of scores [n].

    Raises:
        ValueError: one is undefined on these rows.
    """
    known = ~np.isnan(window.judged.targets[:, k])
    target = window.judged.targets[known, k]
    area, in_slates = auc(target, at_row[known]), gauc(target, at_slate[known], window.judged.slate[known])
    if area is None or in_slates is None:
        raise ValueError(f"{window.objectives[k]} has one class only on the judged rows, or in each of their slates")
    return {"auc": area, "gauc": in_slates}


def outcome(window: Window, scores: Scores, resamples: int) -> Outcome:
    """One seed's figures, and their samples under the resamples of users that all share."""
    kinds = dict.fromkeys(window.objectives, "binary")
    figures, samples = judge_rows(kinds, window.judged, *scores, resamples)  # type: ignore[arg-type]
    return Outcome({"objectives": figures}, samples)


def against(outcomes: Mapping[str, Outcomes], objectives: Sequence[str]) -> dict[str, Any]:
    """Means and spreads of all; ours minus each peer; ours minus the best peer of each objective and metric; the target.

    The best peer is the one with the highest mean on these very rows: the hardest to beat. ``mean_auc`` is the mean over
    objectives of our AUC less that of the best peer. All with intervals of :func:`training.compare_figures.paired`.
    """
    peers = [who for who in outcomes if who != OURS]
    found = {who: {name: levels(own, name, "binary") for name in objectives} for who, own in outcomes.items()}
    differences = {
        peer: {
            name: {metric: difference(outcomes[OURS], outcomes[peer], name, metric) for metric in METRICS}
            for name in objectives
        }
        for peer in peers
    }
    best = {
        name: {metric: max(peers, key=lambda who: _mean(found, who, name, metric)) for metric in METRICS}
        for name in objectives
    }
    to_best = {name: {m: differences[best[name][m]][name][m] for m in METRICS} for name in objectives}
    mean = mean_difference(outcomes, {name: best[name]["auc"] for name in objectives}, "auc")
    return {
        "levels": found,
        "differences": differences,
        "best": best,
        "mean_auc": mean,
        "target": target(to_best, mean),
    }


def mean_difference(outcomes: Mapping[str, Outcomes], best: Mapping[str, str], metric: str) -> dict[str, Any]:
    """The mean over objectives of ours minus the best peer's metric, with its interval."""
    values = [difference(outcomes[OURS], outcomes[peer], name, metric)["mean"] for name, peer in best.items()]
    sides = [
        np.mean([[o.samples[f"{name}/{metric}"] for o in outcomes[who(name)]] for name in best], axis=0)
        for who in (lambda _: OURS, best.__getitem__)
    ]
    bounds, _ = interval(paired(*sides))
    return {"mean": float(np.mean(values)), "interval": None if bounds is None else list(bounds)}


def target(to_best: Mapping[str, Mapping[str, Any]], mean: Mapping[str, Any]) -> dict[str, Any]:
    """What was aimed at, and whether it was reached."""
    lower = {name: _lower(found["gauc"]) for name, found in to_best.items()}
    return {
        "auc_above_best": {name: found["auc"]["mean"] > 0 for name, found in to_best.items()},
        "mean_auc_above_interval": _lower(mean) > 0,
        "gauc_lower_end": lower,
        "gauc_within_margin": {name: low > GAUC_MARGIN.get(name, OTHER_GAUC_MARGIN) for name, low in lower.items()},
    }


def show(figures: Mapping[str, Any], titles: Mapping[str, str], objectives: Sequence[str], console: Console) -> None:
    """One table of AUC, one of GAUC, and the target in sentences."""
    for metric in METRICS:
        table = Table(metric.upper(), *objectives)
        for who, title in titles.items():
            cells = [figures["levels"][who][name][metric] for name in objectives]
            table.add_row(title, *(f"{c['mean']:.4f}" + _spread(c["deviation"]) for c in cells))
        for peer, found in figures["differences"].items():
            cells = [found[name][metric] for name in objectives]
            table.add_row(f"ours - {titles[peer]}", *(_signed(cell) for cell in cells))
        console.print(table)
    goal, best = figures["target"], figures["best"]
    for name in objectives:
        above = "above" if goal["auc_above_best"][name] else "not above"
        within = "within" if goal["gauc_within_margin"][name] else "below"
        console.print(
            f"{name}: AUC {above} the best peer's ({titles[best[name]['auc']]}); lower end of GAUC against"
            f" {titles[best[name]['gauc']]} {goal['gauc_lower_end'][name]:+.4f}, {within} the margin of"
            f" {GAUC_MARGIN.get(name, OTHER_GAUC_MARGIN)}"
        )
    more = "more" if goal["mean_auc_above_interval"] else "not more"
    console.print(f"mean AUC over the best peers': {_signed(figures['mean_auc'])}, {more} than its interval")


def _mean(found: Mapping[str, Any], who: str, name: str, metric: str) -> float:
    return float(found[who][name][metric]["mean"])


def _lower(found: Mapping[str, Any]) -> float:
    return -np.inf if found["interval"] is None else float(found["interval"][0])


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.4f}"


def _signed(found: Mapping[str, Any]) -> str:
    bounds = found["interval"]
    ends = "no interval" if bounds is None else f"[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"
    return f"{found['mean']:+.4f} {ends}"
