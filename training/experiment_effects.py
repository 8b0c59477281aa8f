"""Levels of arms and differences between them, by user, at every look at once.

Every metric is a ratio of sums over the users of an arm, R = sum y / sum z (z = 1 for a mean by user). By the delta
method (Deng, Knoblich & Lu, KDD 2018) R moves by psi_i = (y_i - R z_i) / sum z with user i, and its variance is the sum
of psi_i^2: users are independent of each other, their days and impressions need not be. With psi at every look, the
covariance between looks comes the same way.

CUPED (Deng, Xu, Kohavi & Walker, WSDM 2013) takes off what was known of the users before:

    R' = R - theta' (x_arm - x_all),    theta = (sum n^2 psi_x psi_x')^-1 sum n^2 psi_x psi_R

which makes the variance of R' smallest. The sums are over the users of all arms, n those of each one's own: one theta for
all, so that it can't differ between them by chance. For a ratio, x is the earlier ratio linearised
(training/experiment_metrics.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.experiment_frame import Bools, Floats, Ints


@dataclass(frozen=True)
class Outcome:
    """A metric's two sides of every user, cumulated to each look, and what was known of the users before."""

    top: Floats  # [n, L] y
    bottom: Floats  # [n, L] z
    entered: Bools  # [n, L] who is in by then; y and z of the others are 0
    history: Floats  # [n, P] x; P = 0: nothing to adjust by


@dataclass(frozen=True)
class Levels:
    """Of K arms at L looks, adjusted where there is history. NaN where an arm has nobody (or a ratio no denominator)."""

    users: Ints  # [K, L]
    plain: Floats  # [K, L] R
    level: Floats  # [K, L] R'
    moves: Sequence[Floats]  # of each arm [n_k, L]: psi' of its users
    shifts: Floats  # [n, L] by how much each user moves theta' x_all: common to all levels
    members: Sequence[Ints]  # of each arm: which users
    theta: Floats  # [L, P]


def levels(outcome: Outcome, arm: Ints, arms: int) -> Levels:
    """The levels of arms ``0..arms - 1``; ``arm`` [n] is each user's."""
    members = [np.flatnonzero(arm == k) for k in range(arms)]
    entered = outcome.entered.astype(np.float64)
    users = np.stack([entered[m].sum(axis=0) for m in members])
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = [(outcome.top[m].sum(axis=0), outcome.bottom[m].sum(axis=0)) for m in members]
        plain = np.stack([np.where(bottom > 0, top / bottom, np.nan) for top, bottom in sums])
        small = np.sqrt(users / (users - 1))  # the sum of psi^2 is too small by (n - 1) / n
        moves = [small[k] * (outcome.top[m] - plain[k] * outcome.bottom[m]) / sums[k][1] for k, m in enumerate(members)]
        theta, level, shifts = _adjust(outcome, entered, members, users, plain, moves, small)
    return Levels(users.astype(np.int64), plain, level, moves, shifts, members, theta)


def _adjust(
    outcome: Outcome,
    entered: Floats,
    members: Sequence[Ints],
    users: Floats,
    plain: Floats,
    moves: Sequence[Floats],
    small: Floats,
) -> tuple[Floats, Floats, Floats]:
    """(theta [L, P], adjusted levels [K, L], shifts [n, L]); takes the history's part off ``moves`` in place."""
    x, (_, looks) = outcome.history, outcome.top.shape
    width, everyone = x.shape[1], users.sum(axis=0)
    level, shifts = plain.copy(), np.zeros(outcome.top.shape)
    if width == 0:
        return np.zeros((looks, 0)), level, shifts
    means = [(entered[m].T @ x[m]) / users[k][:, None] for k, m in enumerate(members)]  # [L, P]
    overall = (entered.T @ x) / everyone[:, None]
    of_arm = [
        [small[k] * entered[m] * (x[m, p, None] - means[k][:, p]) / users[k] for p in range(width)]
        for k, m in enumerate(members)
    ]
    arms = [(n**2, of, move) for n, of, move in zip(users, of_arm, moves, strict=True)]
    squares = np.array(
        [[sum(w * (x[p] * x[q]).sum(axis=0) for w, x, _ in arms) for q in range(width)] for p in range(width)]
    )
    products = np.array([sum(w * (x[p] * move).sum(axis=0) for w, x, move in arms) for p in range(width)])
    theta = np.stack([_solve(squares[:, :, d], products[:, d]) for d in range(looks)])
    for k in range(len(members)):
        level[k] -= ((means[k] - overall) * theta).sum(axis=1)
        for p in range(width):
            moves[k][...] -= theta[:, p] * of_arm[k][p]
    for p in range(width):
        shifts += theta[:, p] * entered * (x[:, p, None] - overall[:, p]) / everyone
    return theta, level, shifts


def _solve(squares: Floats, products: Floats) -> Floats:
    """theta; 0 for what doesn't vary, or varies with another."""
    scale = np.sqrt(np.diag(squares))
    if not np.isfinite(squares).all() or not np.isfinite(products).all() or not scale.any():
        return np.zeros(len(products))
    scale = np.where(scale > 0, scale, 1.0)
    solved: Floats = np.linalg.pinv(squares / np.outer(scale, scale), rcond=1e-8, hermitian=True) @ (products / scale)
    return solved / scale


@dataclass(frozen=True)
class Difference:
    """Treatment minus control at L looks, with what is needed to say it in parts of the control's level."""

    delta: Floats  # [L]
    covariance: Floats  # [L, L] between looks
    level: Floats  # [L] the control's
    level_variance: Floats  # [L]
    level_covariance: Floats  # [L] of delta and level

    @property
    def error(self) -> Floats:
        """[L] standard errors."""
        return np.sqrt(np.diag(self.covariance))


def difference(of: Levels, treatment: int, control: int) -> Difference:
    above, base = of.moves[treatment], of.moves[control]
    everyone = of.shifts.copy()  # how the control's level moves with each user
    everyone[of.members[control]] += base
    own = everyone[of.members[control]]
    with np.errstate(invalid="ignore"):  # looks at which an arm has nobody are NaN
        return Difference(
            delta=of.level[treatment] - of.level[control],
            covariance=above.T @ above + base.T @ base,
            level=of.level[control],
            level_variance=(everyone**2).sum(axis=0),
            level_covariance=(above * everyone[of.members[treatment]]).sum(axis=0) - (base * own).sum(axis=0),
        )


def relative(of: Difference, look: int, width: float) -> tuple[float, float] | None:
    """The interval of delta / level at a look, ``width`` standard errors to each side (Fieller 1954).

    It holds 0 just when the interval of delta does. None where the control's level can't be told from 0.
    """
    delta, level = float(of.delta[look]), float(of.level[look])
    z2, cross = width**2, float(of.level_covariance[look])
    a = level**2 - z2 * float(of.level_variance[look])
    b = delta * level - z2 * cross
    c = delta**2 - z2 * float(of.covariance[look, look])
    if not (a > 0 and np.isfinite(width)):
        return None
    root = float(np.sqrt(max(b * b - a * c, 0.0)))
    return (b - root) / a, (b + root) / a
