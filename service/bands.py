"""Whether a canary does worse than the champion beside it by more than is allowed. Pure functions of both sides' counts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from service.settings import Settings

CLEAR = 3.0
"""Standard errors that a ratio of rates must be away from 1: who looks every second would else see chance leave any band."""


@dataclass(frozen=True)
class Figures:
    """What one side has done. Sums, so that shares and means can be made of them.

    Attributes:
        slates: answered; with ``errors``, all requests.
        errors: requests that failed or were late, and slates with a score that is not finite.
        latency: 95th percentile in seconds, of the last slates; NaN without any.
        candidates, unknown_videos: scored, and of those not in the bundle.
        unknown_users: slates of users not in the bundle.
        context, nulls: context values looked for, and not found.
        views: served items that were seen.
        predicted, positives: by objective, sums over the views of what was predicted and of what came.
    """

    slates: int = 0
    errors: int = 0
    latency: float = math.nan
    candidates: int = 0
    unknown_videos: int = 0
    unknown_users: int = 0
    context: int = 0
    nulls: int = 0
    views: int = 0
    predicted: Mapping[str, float] = field(default_factory=dict)
    positives: Mapping[str, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return self.slates + self.errors


def left(champion: Figures, canary: Figures, settings: Settings) -> tuple[str, str] | None:
    """The first band that the canary has left, as (name, sentence), or None."""
    least = settings.canary_minimum
    if min(champion.requests, canary.requests) >= least:
        for found in _requests(champion, canary, settings):
            return found
    if min(champion.views, canary.views) >= least:
        for found in _outcomes(champion, canary, settings):
            return found
    return None


def _requests(champion: Figures, canary: Figures, settings: Settings) -> Iterator[tuple[str, str]]:
    ours, theirs = _share(canary.errors, canary.requests), _share(champion.errors, champion.requests)
    if ours - theirs > settings.canary_errors:
        yield "errors", f"{ours:.1%} of the requests failed, of the champion's {theirs:.1%}"
    if canary.latency > settings.canary_latency * champion.latency:
        ours, theirs = canary.latency * 1e3, champion.latency * 1e3
        yield "latency", f"95% of the slates took up to {ours:.1f} ms, of the champion's {theirs:.1f} ms"
    pairs = {
        "unknown_videos": (
            "candidates",
            (canary.unknown_videos, canary.candidates),
            (champion.unknown_videos, champion.candidates),
        ),
        "unknown_users": ("users", (canary.unknown_users, canary.slates), (champion.unknown_users, champion.slates)),
    }
    for name, (what, mine, its) in pairs.items():
        if _share(*mine) - _share(*its) > settings.canary_unknown:
            yield name, f"{_share(*mine):.1%} of the {what} are unknown to it, {_share(*its):.1%} to the champion"
    ours, theirs = _share(canary.nulls, canary.context), _share(champion.nulls, champion.context)
    if ours - theirs > settings.canary_nulls:
        yield "null_features", f"{ours:.1%} of its context features are null, {theirs:.1%} of the champion's"


def _outcomes(champion: Figures, canary: Figures, settings: Settings) -> Iterator[tuple[str, str]]:
    for objective, positives in canary.positives.items():
        if objective not in champion.positives:
            continue
        before = champion.positives[objective]
        error = math.sqrt(1 / (positives + 0.5) + 1 / (before + 0.5))
        rate = _ratio(positives, canary.views, before, champion.views)
        if _outside(rate, error, settings):
            yield f"rate_{objective}", f"its rate of {objective} is {rate:.2f} times the champion's"
        calibration = _ratio(before, champion.predicted[objective], positives, canary.predicted[objective])
        if _outside(calibration, error, settings):
            sentence = f"its predicted over actual {objective} is {calibration:.2f} times the champion's"
            yield f"predicted_{objective}", sentence


def _ratio(a: float, of_a: float, b: float, of_b: float) -> float:
    """(a / of_a) / (b / of_b), each count with half an event more, so that none is 0."""
    return ((a + 0.5) / max(of_a, 1e-9)) / ((b + 0.5) / max(of_b, 1e-9))


def _outside(ratio: float, error: float, settings: Settings) -> bool:
    return not settings.canary_low <= ratio <= settings.canary_high and abs(math.log(ratio)) > CLEAR * error


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
