"""Importance weights of the slots: how much likelier a new order makes what was shown, exactly."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.exploration import propensity
from training.slot_chances import slot_chances

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Given = Literal["above", "slot"]
"""What a slot's outcome may depend on, beside its video: all slots above, or nothing else (training/off_policy.py)."""


@dataclass(frozen=True)
class Slates:
    """Sampled requests [R], padded to C candidates and S slots. Candidates stand in order of their ids, so that the first
    of equal ones is the one that ranking would take."""

    user: Ints  # [R] a number per user
    predictions: NDArray[np.float32]  # [R, C, K] as logged; NaN where there is no candidate
    keys: Floats  # [R, C] what the requests were ordered by; -inf where there is no candidate
    share: Floats  # [R] e: of slots that explored
    shown: Ints  # [R, S] places among the candidates; -1 where the slate ended
    propensity: Floats  # [R, S] as logged; 1 where the slate ended
    outcomes: Floats  # [R, S, K] 0 where there was none

    @cached_property
    def filled(self) -> Bools:
        """Which slots there are [R, S]."""
        return self.shown >= 0

    @cached_property
    def eligible(self) -> Ints:
        """How many candidates each request has [R]."""
        return np.asarray(np.isfinite(self.keys).sum(axis=1), np.int64)

    def take(self, rows: NDArray[np.integer] | Bools) -> "Slates":
        return Slates(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Target:
    """A policy that is to be judged on these requests: their order by ``keys`` [R, C], explored by ``share`` [R]."""

    keys: Floats
    share: Floats


def chances(slates: Slates, target: Target) -> Floats:
    """P(the shown video in its slot | candidates, slots above) under the target [R, S]; 1 where there is no slot."""
    rows = np.arange(len(slates.keys))
    left, result = target.keys.copy(), np.ones(slates.shown.shape)
    for slot in range(slates.shown.shape[1]):
        there, shown = slates.filled[:, slot], slates.shown[:, slot]
        chance = propensity(shown == left.argmax(axis=1), target.share, np.maximum(slates.eligible - slot, 1))
        result[:, slot] = np.where(there, chance, 1.0)
        left[rows[there], shown[there]] = -np.inf
    return result


def best_first(keys: Floats, slots: int) -> Ints:
    """The first ``slots`` candidates in the order of ``keys`` [R, S]; the first of equal ones first."""
    rows, left = np.arange(len(keys)), keys.copy()
    result = np.empty((len(keys), slots), np.int64)
    for slot in range(slots):
        result[:, slot] = left.argmax(axis=1)
        left[rows, result[:, slot]] = -np.inf
    return result


def weights(slates: Slates, target: Target, given: Given = "above") -> Floats:
    """w [R, S]: of what a slot's outcome may depend on, the probability under the target over that when it was logged.

    ``above``: the product of P(a_t | a_1..a_(t-1)) over the slot and those above. ``slot``: of the video being in the
    slot, whatever stood above.
    """
    if given == "above":
        return np.asarray(np.cumprod(chances(slates, target) / slates.propensity, axis=1))
    logged = Target(slates.keys, slates.share)
    ratios = _slot_chances(slates, target) / _slot_chances(slates, logged)
    return np.where(slates.filled, ratios, 1.0)


def _slot_chances(slates: Slates, target: Target) -> Floats:
    """P(the shown video in its slot) [R, S], whatever stands above."""
    slots = slates.shown.shape[1]
    table = slot_chances(slates.eligible, target.share, slots)
    places = np.arange(target.keys.shape[1])
    result = np.ones(slates.shown.shape)
    for slot in range(slots):
        shown = np.maximum(slates.shown[:, slot], 0)[:, None]
        key = np.take_along_axis(target.keys, shown, axis=1)
        rank = ((target.keys > key) | ((target.keys == key) & (places < shown))).sum(axis=1)
        result[:, slot] = table[np.arange(len(rank)), slot, np.minimum(rank, slots)]
    return np.where(slates.filled, result, 1.0)


def foreseen(slates: Slates, target: Target, values: NDArray[np.floating], total: Floats) -> Floats:
    """What the target's slots would bring [R, S, K] by ``values`` [R, C, K] (0 where there is no candidate) that come to
    ``total`` [R, K]. Exact, though only the first S ranks are looked at: all others are alike in every slot."""
    slots = slates.shown.shape[1]
    table = slot_chances(slates.eligible, target.share, slots)
    first = best_first(target.keys, min(slots, target.keys.shape[1]))
    of_first = np.take_along_axis(values, first[:, :, None], axis=1).astype(np.float64)
    rest = total - of_first.sum(axis=1)
    found = table[:, :, : first.shape[1]] @ of_first + table[:, :, -1:] * rest[:, None, :]
    return np.asarray(np.where(slates.filled[:, :, None], found, 0.0))
