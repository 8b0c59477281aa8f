"""The health of the gates: utilisation, effective number of experts, polarization (DESIGN.md, Words), dead units.

Of a trunk with several levels of gates the last one is judged, over all of its experts: one that an objective cannot use
(another objective's own) has weight 0 there, so that an expert of an objective's own is dead when that one does not use it.
A gate with one expert to choose from is not judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import Config
from data.config_trunk import Places


def effective_experts(utilisation: NDArray[Any]) -> NDArray[np.float64]:
    """exp(entropy) of each gate's utilisations: [K, E] to [K]. 1: one expert does all; E: all alike.

    Rows are normalised to sum 1. NaN where a row is not finite or sums to 0.
    """
    use = np.asarray(utilisation, np.float64)
    total = use.sum(axis=-1, keepdims=True)
    share = np.divide(use, total, out=np.full_like(use, np.nan), where=total > 0)
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), np.where(np.isnan(share), np.nan, 0))
    return np.asarray(np.exp(entropy.sum(axis=-1)))


@dataclass(frozen=True)
class GateHealth:
    """``effective`` [K]; the experts that are dead and the gates that have collapsed, by their index."""

    effective: NDArray[np.float64]
    dead: tuple[int, ...]
    collapsed: tuple[int, ...]

    @property
    def polarized(self) -> bool:
        return bool(self.dead or self.collapsed)


def gate_health(
    utilisation: NDArray[Any], dead_expert: float, collapsed_gate: float, places: Places | None = None
) -> GateHealth:
    """Judge utilisations [K, E]: an expert is dead when its utilisation is under ``dead_expert`` for every objective, a
    gate collapsed when its effective number of experts is under ``collapsed_gate``. Polarized is either.

    Args:
        places: the experts that each gate can choose from; None: all of them.
    """
    effective = effective_experts(utilisation)
    dead = np.flatnonzero((utilisation < dead_expert).all(axis=0))
    choice = np.array([len(own) > 1 for own in places]) if places else np.ones(len(utilisation), bool)
    collapsed = np.flatnonzero(choice & (effective < collapsed_gate))
    return GateHealth(effective, tuple(dead.tolist()), tuple(collapsed.tolist()))


def gate_figures(
    utilisation: NDArray[Any],
    names: tuple[str, ...],
    dead_expert: float,
    collapsed_gate: float,
    places: Places | None = None,
) -> dict[str, Any]:
    """The JSON of the gates. What cannot be judged is null, with the reason under ``undefined``."""
    thresholds = {"dead_expert": dead_expert, "collapsed_gate": collapsed_gate}
    reason = _why_not(utilisation)
    if reason is not None:
        nothing = dict.fromkeys(("utilisation", "effective_experts", "dead_experts", "collapsed_gates", "polarized"))
        return {**nothing, "thresholds": thresholds, "undefined": dict.fromkeys(nothing, reason)}
    health = gate_health(utilisation, dead_expert, collapsed_gate, places)
    figures: dict[str, Any] = {
        "utilisation": {name: [float(u) for u in row] for name, row in zip(names, utilisation, strict=True)},
        "effective_experts": {name: float(e) for name, e in zip(names, health.effective, strict=True)},
        "dead_experts": list(health.dead),
        "collapsed_gates": [names[k] for k in health.collapsed],
        "polarized": health.polarized,
        "thresholds": thresholds,
        "undefined": {},
    }
    if utilisation.shape[1] == 1 or (places and max(len(own) for own in places) == 1):
        figures |= {"collapsed_gates": None, "polarized": None}
        figures["undefined"] = dict.fromkeys(("collapsed_gates", "polarized"), "one expert: its gate has no choice")
    return figures


def places_of(config: Config) -> Places | None:
    """The experts that each objective's gate can choose from in this configuration's trunk; None: all of them."""
    return config.model.trunk.places([objective.family for objective in config.objectives])


def row_figures(
    entropy: NDArray[Any] | None, live: Mapping[str, tuple[int, NDArray[np.bool_]]], names: tuple[str, ...], experts: int
) -> dict[str, Any]:
    """The JSON of what is known of the rows behind the utilisations.

    ``gate_entropy``: by objective, the mean over rows of their gate's entropy, in nats: 0 where every row is decided, also
    where rows decide differently and so use all experts. ``dead_unit_share``: the share of the experts' last units that
    were 0 on all rows of a day; the days' mean, weighted by their rows.

    Args:
        entropy: [K].
        live: by day, its rows, and which units were above 0 for some of them [E, H].
    """
    none = "the trunk has no experts" if not experts else None
    shares = {day: float(1 - units.mean()) for day, (rows, units) in live.items() if rows and units.size}
    figures: dict[str, Any] = {"gate_entropy": None, "dead_unit_share": None, "dead_unit_share_by_day": None}
    undefined = dict.fromkeys(figures, none or "no rows were scored")
    if entropy is not None and np.isfinite(entropy).all() and experts:
        figures["gate_entropy"] = {name: float(value) for name, value in zip(names, entropy, strict=True)}
        del undefined["gate_entropy"]
    if shares:
        weights = [live[day][0] for day in shares]
        figures["dead_unit_share"] = float(np.average(list(shares.values()), weights=weights))
        figures["dead_unit_share_by_day"] = shares
        return {**figures, "undefined": {k: v for k, v in undefined.items() if not k.startswith("dead")}}
    if none is None and live:
        undefined |= dict.fromkeys(("dead_unit_share", "dead_unit_share_by_day"), "the experts have no ReLU units")
    return {**figures, "undefined": undefined}


def _why_not(utilisation: NDArray[Any]) -> str | None:
    if not utilisation.size:
        return "the trunk has no experts"
    if not np.isfinite(utilisation).all():
        return "no rows were scored"
    return None
