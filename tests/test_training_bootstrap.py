"""Resampling users: seeded, paired, exact for AUC, honest in coverage, and silent where it has nothing to say."""

import numpy as np
import pytest

from training import metrics
from training.bootstrap import LEVELS, Resamples, difference, interval, over_seeds
from training.pairs import order_accuracy, row_pairs


def _rows(seed: int, n: int = 500, users: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 50, n) / 50
    return (rng.random(n) < scores).astype(np.float32), scores, rng.integers(0, users, n) * 7 - 3


def test_every_resample_has_as_many_users_as_there_are() -> None:
    _, _, user = _rows(0)
    resamples = Resamples(user, 20, 1)
    assert resamples.users == len(np.unique(user))
    assert [int(resamples.weights(r).sum()) for r in range(20)] == [resamples.users] * 20


def test_the_seed_decides() -> None:
    y, p, user = _rows(1)
    one, same, other = (Resamples(user, 30, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.auc(y, p, one.row_user), same.auc(y, p, same.row_user))
    assert not np.array_equal(one.auc(y, p, one.row_user), other.auc(y, p, other.row_user))


def test_samples_are_the_weighted_metrics() -> None:
    y, p, user = _rows(2)
    resamples = Resamples(user, 15, 3)
    weights = [resamples.weights(r)[resamples.row_user] for r in range(15)]
    np.testing.assert_allclose(resamples.auc(y, p, resamples.row_user), [metrics.auc(y, p, w) for w in weights])
    losses = metrics.log_losses(y, p)
    samples = resamples.ratio(losses, np.ones(len(y)), resamples.row_user)
    np.testing.assert_allclose(samples, [metrics.log_loss(y, p, w) for w in weights])


def test_levels_beyond_the_limit_change_auc_by_nothing_that_shows() -> None:
    rng = np.random.default_rng(0)
    n = 4 * LEVELS
    p = rng.random(n)
    y, user = (rng.random(n) < p).astype(float), np.arange(n) % 500
    resamples = Resamples(user, 3, 1)
    exact = [metrics.auc(y, p, resamples.weights(r)[resamples.row_user]) for r in range(3)]
    np.testing.assert_allclose(resamples.auc(y, p, resamples.row_user), exact, atol=1e-6)


def test_weights_that_do_not_fit_the_cache_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, user = _rows(3)
    cached = Resamples(user, 10, 3)
    monkeypatch.setattr("training.bootstrap._CACHED", 0)
    plain = Resamples(user, 10, 3)
    np.testing.assert_array_equal(cached.auc(y, p, cached.row_user), plain.auc(y, p, plain.row_user))
    np.testing.assert_allclose(cached.ratio(p, y, cached.row_user), plain.ratio(p, y, plain.row_user))


def test_order_accuracy_to_first_order_is_close_to_exact() -> None:
    rng = np.random.default_rng(6)
    n, users = 1500, 150
    user = rng.integers(0, users, n)
    p = rng.normal(0, 1, n) + rng.normal(0, 0.7, users)[user]
    y = np.round(np.exp(p + rng.normal(0, 1, n)), 1)
    resamples = Resamples(user, 60, 1)
    pairs = row_pairs(y, p, np.zeros(n, np.int64), np.ones(n))
    first_order = resamples.order_accuracy(pairs, resamples.row_user)
    exact = np.array([order_accuracy(y, p, resamples.weights(r)[resamples.row_user]) for r in range(60)])
    assert np.sqrt(np.mean((first_order - exact) ** 2)) < 0.2 * exact.std()
    assert first_order.std() == pytest.approx(exact.std(), rel=0.1)


def test_coverage_of_a_clustered_mean() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for trial in range(150):
        user = np.repeat(np.arange(60), 10)
        y = rng.normal(0, 1, 60)[user] + rng.normal(0, 1, len(user))  # true mean 0; rows of a user hang together
        resamples = Resamples(user, 200, trial)
        bounds, _ = interval(resamples.ratio(y, np.ones(len(y)), resamples.row_user))
        assert bounds is not None
        covered += bounds[0] <= 0 <= bounds[1]
    assert 0.89 <= covered / 150 <= 0.99  # by row it would be about 0.5


def test_a_paired_difference_is_tighter_than_its_parts() -> None:
    rng = np.random.default_rng(9)
    user = rng.integers(0, 300, 6000)
    p = rng.random(6000)
    y = (rng.random(6000) < p).astype(float)
    worse = p + rng.normal(0, 0.1, 6000)
    resamples = Resamples(user, 200, 1)
    ours, theirs = (resamples.auc(y, s, resamples.row_user) for s in (p, worse))
    bounds, _ = interval(difference(ours, theirs))
    own, _ = interval(ours)
    assert bounds is not None
    assert own is not None
    assert bounds[0] > 0  # the better one is seen to be better
    assert bounds[1] - bounds[0] < (own[1] - own[0]) / 2
    same, _ = interval(difference(ours, ours))
    assert same == (0, 0)


def test_resamples_of_one_class_are_undefined_and_too_many_leave_no_interval() -> None:
    y, p = np.array([1.0, 0, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3])
    resamples = Resamples(np.arange(4), 400, 0)
    samples = resamples.auc(y, p, resamples.row_user)
    drawn = np.array([resamples.weights(r)[0] for r in range(400)])
    np.testing.assert_array_equal(np.isnan(samples), (drawn == 0) | (drawn == 4))
    bounds, reason = interval(samples)
    assert bounds is None
    assert reason is not None
    assert "too few users" in reason


def test_few_undefined_resamples_are_left_out() -> None:
    samples = np.concatenate([np.full(4, np.nan), np.linspace(0, 1, 96)])
    bounds, reason = interval(samples)
    assert reason is None
    assert bounds == pytest.approx((0.025, 0.975))


def test_one_class_in_all_rows_is_undefined_everywhere() -> None:
    resamples = Resamples(np.arange(5), 7, 0)
    assert np.isnan(resamples.auc(np.ones(5), np.arange(5), resamples.row_user)).all()
    assert np.isnan(resamples.ratio(np.ones(5), np.zeros(5), resamples.row_user)).all()


def test_no_rows_and_no_resamples() -> None:
    empty = Resamples(np.zeros(0, np.int64), 5, 0)
    assert empty.users == 0
    assert np.isnan(empty.auc(np.zeros(0), np.zeros(0), empty.row_user)).all()
    none = Resamples(np.arange(3), 0, 0)
    assert interval(none.ratio(np.ones(3), np.ones(3), none.row_user)) == (None, "no resamples were asked for")


def test_over_seeds_adds_the_spread_between_seeds() -> None:
    rng = np.random.default_rng(2)
    within = rng.normal(0, 0.01, 2000)
    samples = np.array([0.70, 0.72, 0.74, 0.76, 0.78])[:, None] + within
    together = over_seeds(samples, 1)
    # a mean of five draws of seeds with sd 0.0283: 0.0126; users' 0.01 on top: 0.0161
    assert together.std() == pytest.approx(0.0161, rel=0.1)
    assert together.mean() == pytest.approx(0.74, abs=0.002)
    np.testing.assert_array_equal(over_seeds(samples[:1], 1), samples[0])
    paired = difference(over_seeds(samples + 0.01, 3), over_seeds(samples, 3))
    np.testing.assert_allclose(paired, 0.01)
