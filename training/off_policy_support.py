"""How many effective samples are to be expected, whether the log met the great weights or not.

Where little explores, a new order's first choice was shown once in a thousand requests, with a weight of hundreds. A log
that happens to hold none of these has small weights, a fine-looking effective sample size, and nothing to say about where
the orders differ. But R / E[w^2], which (sum w)^2 / sum w^2 tends to, needs none of them: E[w^2] under the logging policy is
E[w] under the target, and slates of the target can be drawn, as both policies are known.
"""

from dataclasses import replace

import numpy as np

from data.simulator.exploration import fill_slots
from training.off_policy_weights import Floats, Given, Slates, Target, best_first, chances
from training.slot_chances import slot_chances

SEED = 0
"""Of the slates drawn: the same log gives the same figures."""


def squares(slates: Slates, target: Target, given: Given = "above") -> Floats:
    """E[w_s^2 | request] [R, S], w as in :func:`training.off_policy_weights.weights`; 1 where there is no slot. Of ``above``
    by one slate of the target a request, of ``slot`` exact."""
    if given == "slot":
        return np.where(slates.filled, _of_slots(slates, target), 1.0)
    places = np.broadcast_to(np.arange(target.keys.shape[1]), target.keys.shape)
    with np.errstate(all="ignore"):  # a slot that no candidate is left for; a video that could not be logged: infinite
        drawn = fill_slots(places, target.keys, target.share, slates.shown.shape[1], np.random.default_rng(SEED))
        shown = np.where(slates.filled, drawn.video, -1)
        logged = chances(replace(slates, shown=shown), Target(slates.keys, slates.share))
        ratios = np.where(slates.filled, drawn.propensity, 1.0) / logged
    return np.asarray(np.cumprod(ratios, axis=1))


def _of_slots(slates: Slates, target: Target) -> Floats:
    """sum_a P(a in slot s)^2 / P0(a in slot s) [R, S]: the first S of either order, and all others, which are alike."""
    slots = slates.shown.shape[1]
    first = min(slots, target.keys.shape[1])
    new = slot_chances(slates.eligible, target.share, slots)
    old = slot_chances(slates.eligible, slates.share, slots)
    wanted, logged = best_first(target.keys, first), best_first(slates.keys, first)
    result = np.zeros(slates.shown.shape)
    count = np.zeros(len(wanted))
    for place in range(first):  # the new order's first ones, wherever they stood
        there = place < slates.eligible
        rank = np.where(logged == wanted[:, place : place + 1], np.arange(first), slots).min(axis=1)
        below = np.take_along_axis(old, rank[:, None, None], axis=2)[:, :, 0]
        result += np.where(there[:, None], _ratio(new[:, :, place], below), 0.0)
        count += there
        # the logged order's first ones that the new order has further down
        gone = ~(wanted == logged[:, place : place + 1]).any(axis=1) & there
        result += np.where(gone[:, None], _ratio(new[:, :, -1], old[:, :, place]), 0.0)
        count += gone
    rest = np.maximum(slates.eligible - count, 0.0)[:, None]
    return np.asarray(result + rest * _ratio(new[:, :, -1], old[:, :, -1]))


def _ratio(new: Floats, old: Floats) -> Floats:
    return np.asarray(np.divide(new**2, old, out=np.zeros_like(new), where=old > 0))
