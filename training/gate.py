"""The promotion gate: may a challenger take the champion's place? A pure function of what both predicted for one day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from data.config import Config
from data.errors import ConfigError
from training.baselines import CHAMPION
from training.figures import Scored, beside, evaluate
from training.gates import gate_figures, places_of

Verdict = Literal["pass", "fail", "undecided", "warn"]
Figures = Mapping[str, Any]

NAMED_SLICES = {"new_users": "new_user", "new_videos": "new_video"}
"""Names of ``gate.slices`` that are no context columns, as the figures call them."""


@dataclass(frozen=True)
class Facts:
    """What is measured on the published bundle itself; None where there was nothing to measure or compare with.

    ``rows`` were scored through the bundle's scorer and request encoder, ``rows_over`` of them differ from the offline
    predictions by more than the tolerance, ``largest`` is the largest difference in tolerances. Ratios are challenger over
    champion.
    """

    rows: int = 0
    rows_over: int = 0
    largest: float | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None
    bytes: int | None = None
    size_ratio: float | None = None


@dataclass(frozen=True)
class Check:
    """One question put to the challenger: of what kind, on what, and the answer with its figures."""

    kind: Literal["order", "calibration", "gates", "served equals offline", "latency", "size", "decided objectives"]
    on: str
    verdict: Verdict
    says: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, every check behind it, and the day's figures of both."""

    promoted: bool
    checks: tuple[Check, ...]
    figures: Mapping[str, Any]

    @property
    def reasons(self) -> list[str]:
        """Why it is not promoted."""
        return [f"{check.kind} of {check.on}: {check.says}" for check in self.checks if check.verdict == "fail"]

    def as_json(self) -> dict[str, Any]:
        checks = [asdict(check) for check in self.checks]
        return {"promoted": self.promoted, "reasons": self.reasons, "checks": checks, "figures": dict(self.figures)}


def decide(challenger: Sequence[Scored], champion: Sequence[Scored] | None, facts: Facts, config: Config) -> Decision:
    """Judge a challenger on the days that neither was trained on.

    It is promoted when no check fails and at least ``gate.least_decided`` objectives are decided over all rows: what is
    undecided counts neither for nor against it, so a day that decides nothing promotes nobody. Without a champion the
    order is judged against chance.

    Args:
        champion: the same rows as the challenger's, in the same order; None for the first bundle of a name.
    """
    settings = with_slices(config)
    both = list(challenger) if champion is None else [beside(*pair) for pair in zip(challenger, champion, strict=True)]
    figures = evaluate(both, settings)
    before = None if champion is None else _gate_figures(champion, config)
    order = list(_order(figures, champion is not None, config))
    decided = {check.on for check in order if check.verdict in ("pass", "fail") and check.on in config.objective_names}
    checks = [
        *order,
        *_calibration(figures, config),
        _gates(figures["gates"], before, config),
        *_measured(facts, config),
        _decided(decided, config),
    ]
    return Decision(not any(check.verdict == "fail" for check in checks), tuple(checks), figures)


def better(candidate: Sequence[Scored], other: Sequence[Scored], config: Config) -> bool:
    """Whether the candidate is the better of two challengers by the gate's comparison: it is worse for certain on no
    objective, and over those that are decided it is ahead on average."""
    figures = evaluate([beside(*pair) for pair in zip(candidate, other, strict=True)], config)
    found = [
        check
        for check in _order(figures, True, config)
        if check.verdict != "undecided" and check.on in figures["objectives"]
    ]
    worse = any(check.figures["interval"][1] < 0 for check in found)
    return bool(found) and not worse and sum(check.figures["difference"] for check in found) > 0


def with_slices(config: Config) -> Config:
    """The configuration with the gate's slices among those that figures are split by.

    Raises:
        ConfigError: ``gate.slices`` names what is no slice.
    """
    columns = [name for name in config.gate.slices if name not in NAMED_SLICES]
    for name in columns:
        if name not in config.log.context:
            known = ", ".join([*NAMED_SLICES, *config.log.context])
            raise ConfigError(f"gate.slices: unknown slice {name!r}: expected one of {known}")
    slices = tuple(dict.fromkeys([*config.evaluation.slices, *columns]))
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"slices": slices})})


def _order(figures: Figures, has_champion: bool, config: Config) -> Iterator[Check]:
    """The order of every objective, over all rows and in every named slice."""
    for name, objective in figures["objectives"].items():
        yield _one_order(name, name, objective, has_champion, config)
    for slice_name in config.gate.slices:
        for value, objectives in figures["slices"].get(NAMED_SLICES.get(slice_name, slice_name), {}).items():
            for name, objective in objectives.items():
                yield _one_order(f"{name} where {slice_name} is {value}", name, objective, has_champion, config)


def _one_order(on: str, name: str, objective: Figures, has_champion: bool, config: Config) -> Check:
    metric = config.gate.metric if objective["kind"] == "binary" else "order_accuracy"
    margin = config.gate.margins.get(name, config.gate.margin)
    positives, value, interval = objective["positives"], objective[metric], objective[f"{metric}_interval"]
    known: dict[str, Any] = {"metric": metric, "challenger": value, "challenger_interval": interval}
    known |= {"rows": objective["count"], "positives": positives, "margin": margin}
    rarer = min(positives, objective["count"] - positives) if objective["kind"] == "binary" else positives
    if rarer < config.gate.least_positives:
        rare = "positives" if rarer == positives else "negatives"
        return Check("order", on, "undecided", f"{rarer} {rare}, at least {config.gate.least_positives} decide", known)
    if interval is None:
        return Check("order", on, "undecided", f"no interval: {_why(objective, metric)}", known)
    if not has_champion:
        verdict: Verdict = "pass" if interval[0] > 0.5 else "fail" if interval[1] < 0.5 else "undecided"
        return Check("order", on, verdict, f"{_interval(metric, value, interval)}; chance is 0.5", known)
    rival = objective["baselines"][CHAMPION]
    value, bounds = rival["difference"][metric], rival["difference"][f"{metric}_interval"]
    known |= {
        "champion": rival[metric],
        "champion_interval": rival[f"{metric}_interval"],
        "difference": value,
        "interval": bounds,
    }
    if bounds is None:
        return Check("order", on, "undecided", f"no interval: {_why(rival['difference'], metric)}", known)
    if max(interval[0], (known["champion_interval"] or [0.0])[0]) <= 0.5:
        return Check("order", on, "undecided", "the day tells neither challenger nor champion from chance", known)
    says = f"{metric} {value:+.4f} against the champion ({bounds[0]:+.4f} to {bounds[1]:+.4f}), margin {margin:+.4f}"
    return Check("order", on, "pass" if bounds[0] > margin else "fail", says, known)


def _calibration(figures: Figures, config: Config) -> Iterator[Check]:
    low, high = config.gate.calibration
    for name, objective in figures["objectives"].items():
        value, positives = objective["predicted_over_actual"], objective["positives"]
        known = {"predicted_over_actual": value, "interval": objective["predicted_over_actual_interval"]}
        known |= {"positives": positives, "bounds": [low, high]}
        if positives < config.gate.least_positives or value is None:
            reason = _why(objective, "predicted_over_actual") if value is None else f"{positives} positives"
            yield Check("calibration", name, "fail" if "not finite" in reason else "undecided", reason, known)
            continue
        says = f"predicted over actual is {value:.3f}, bounds {low:g} to {high:g}"
        yield Check("calibration", name, "pass" if low <= value <= high else "fail", says, known)


def _gates(gates: Figures, before: Figures | None, config: Config) -> Check:
    """Polarization that the champion doesn't show. What it shows too is no reason to keep it: that is warned of."""
    known = {key: gates[key] for key in ("effective_experts", "dead_experts", "collapsed_gates", "polarized")}
    if gates["polarized"] is None:
        return Check("gates", "the trunk", "undecided", gates["undefined"]["polarized"], known)
    if not gates["polarized"]:
        return Check("gates", "the trunk", "pass", "no dead expert, no collapsed gate", known)
    dead, collapsed = len(gates["dead_experts"]), set(gates["collapsed_gates"])
    old = (len((before or {}).get("dead_experts") or ()), set((before or {}).get("collapsed_gates") or ()))
    as_before = dead <= old[0] and collapsed <= old[1]
    says = ", ".join(
        [*([f"{dead} dead experts"] if dead else []), *(f"the gate of {name} has collapsed" for name in sorted(collapsed))]
    )
    fails = config.gate.polarized == "refuse" and not as_before
    return Check(
        "gates", "the trunk", "fail" if fails else "warn", says + (", as in the champion" if as_before else ""), known
    )


def _gate_figures(scored: Sequence[Scored], config: Config) -> Figures:
    utilisation = np.average([day.utilisation for day in scored], axis=0, weights=[max(len(day), 1) for day in scored])
    settings = config.evaluation
    names, thresholds = config.objective_names, (settings.dead_expert, settings.collapsed_gate)
    return gate_figures(utilisation, names, *thresholds, places_of(config))


def _measured(facts: Facts, config: Config) -> Iterator[Check]:
    known: dict[str, Any] = {"rows": facts.rows, "over": facts.rows_over, "largest": facts.largest}
    if config.gate.spot_check_rows:
        says = f"{facts.rows_over} of {facts.rows} rows differ by more than the tolerance"
        verdict: Verdict = "undecided" if not facts.rows else "fail" if facts.rows_over else "pass"
        yield Check("served equals offline", "rows of the day", verdict, says, known)
    kind: Literal["latency", "size"]
    for kind, ratio, most, what in (
        ("latency", facts.latency_ratio, config.gate.latency_ratio, {"milliseconds": facts.latency_ms}),
        ("size", facts.size_ratio, config.gate.size_ratio, {"bytes": facts.bytes}),
    ):
        known = {**what, "ratio": ratio, "most": most}
        if ratio is None:
            yield Check(kind, "the bundle", "undecided", "no champion to compare with", known)
        else:
            says = f"{ratio:.2f} times the champion's, at most {most:g}"
            yield Check(kind, "the bundle", "pass" if ratio <= most else "fail", says, known)


def _decided(decided: set[str], config: Config) -> Check:
    least = config.gate.least_decided
    says = f"{len(decided)} of {len(config.objectives)} decided, at least {least} needed"
    known = {"decided": sorted(decided), "least": least}
    return Check("decided objectives", "the day", "pass" if len(decided) >= least else "fail", says, known)


def _interval(metric: str, value: float, interval: Sequence[float]) -> str:
    return f"{metric} {value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def _why(figures: Figures, metric: str) -> str:
    undefined: Mapping[str, str] = figures["undefined"]
    return undefined.get(metric) or undefined.get(f"{metric}_interval") or "undefined"
