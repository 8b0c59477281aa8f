"""The health of the gates: utilisation, effective number of experts, polarization (DESIGN.md, Words)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def gate_health(utilisation: NDArray[Any], dead_expert: float, collapsed_gate: float) -> GateHealth:
    """Judge utilisations [K, E]: an expert is dead when its utilisation is under ``dead_expert`` for every objective, a
    gate collapsed when its effective number of experts is under ``collapsed_gate``. Polarized is either."""
    effective = effective_experts(utilisation)
    dead = np.flatnonzero((utilisation < dead_expert).all(axis=0))
    return GateHealth(effective, tuple(dead.tolist()), tuple(np.flatnonzero(effective < collapsed_gate).tolist()))


def gate_figures(
    utilisation: NDArray[Any], names: tuple[str, ...], dead_expert: float, collapsed_gate: float
) -> dict[str, Any]:
    """The JSON of the gates. What cannot be judged is null, with the reason under ``undefined``."""
    thresholds = {"dead_expert": dead_expert, "collapsed_gate": collapsed_gate}
    reason = _why_not(utilisation)
    if reason is not None:
        nothing = dict.fromkeys(("utilisation", "effective_experts", "dead_experts", "collapsed_gates", "polarized"))
        return {**nothing, "thresholds": thresholds, "undefined": dict.fromkeys(nothing, reason)}
    health = gate_health(utilisation, dead_expert, collapsed_gate)
    figures: dict[str, Any] = {
        "utilisation": {name: [float(u) for u in row] for name, row in zip(names, utilisation, strict=True)},
        "effective_experts": {name: float(e) for name, e in zip(names, health.effective, strict=True)},
        "dead_experts": list(health.dead),
        "collapsed_gates": [names[k] for k in health.collapsed],
        "polarized": health.polarized,
        "thresholds": thresholds,
        "undefined": {},
    }
    if utilisation.shape[1] == 1:
        figures |= {"collapsed_gates": None, "polarized": None}
        figures["undefined"] = dict.fromkeys(("collapsed_gates", "polarized"), "one expert: its gate has no choice")
    return figures


def _why_not(utilisation: NDArray[Any]) -> str | None:
    if not utilisation.size:
        return "the trunk has no experts"
    if not np.isfinite(utilisation).all():
        return "no rows were scored"
    return None
