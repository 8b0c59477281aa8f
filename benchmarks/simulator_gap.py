"""How much of the simulator's click signal an additive model can have, and how much more can be learnt.

    python benchmarks/simulator_gap.py [--rows 1000000] [--seed 1] [--set taste=1.6 ...] [--additive-only]

Fits on all days but the last two, the last of which tunes, and scores the exploration rows of the last two days with
positions equal: GAUC within a request (one-class requests left out, weighted by impressions) of

- the true probabilities,
- an additive logistic model: user + video + author + topic + context (device, hour) as one-hot, position x device in
  training only, one L2 strength tuned by GAUC; it is never told what user and video have in common,
- a factorisation: the same terms and user . (video + author + topic), the user's vector made of an id's and the mean of
  the videos clicked last. It is no part of WatchNext; it shows that the rest can be learnt from so many rows.

share = (GAUC - 0.5) / (GAUC of truth - 0.5); closed = (GAUC - additive) / (truth - additive). The standard error is that
of the mean over requests. "Expected" GAUC puts the true probabilities of the examined video in the place of its clicks.
Writes $WATCHNEXT_HOME/benchmarks/simulator_gap.json.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from data.home import Home
from data.simulator.entities import DAY_MS
from data.simulator.settings import DEVICES, WorldConfig, world_config
from data.simulator.sittings import Rows
from data.simulator.world import World

Floats = NDArray[np.floating]
HISTORY = 20
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse L2 strengths that are tried."""
DIMS, DECAY, BATCH, RATE = 8, 6e-3, 2048, 2e-3
"""Of the factorisation."""


@dataclass(frozen=True)
class Fields:
    """Rows as codes: one [n] array per additive term, with its size; and what the factorisation needs besides."""

    terms: Mapping[str, tuple[NDArray[np.int64], int]]
    shown: tuple[NDArray[np.int64], int]  # position x device: in training only
    history: NDArray[np.int32]  # [n, HISTORY] videos clicked before the request, newest first; -1: none
    click: NDArray[np.float32]

    def take(self, rows: NDArray[Any]) -> "Fields":
        terms = {name: (codes[rows], size) for name, (codes, size) in self.terms.items()}
        return Fields(terms, (self.shown[0][rows], self.shown[1]), self.history[rows], self.click[rows])


def main() -> None:
    options = _options()
    changes = dict(text.split("=", 1) for text in options.set)
    base = WorldConfig() if options.rows == WorldConfig().rows else WorldConfig.of_size(options.rows)
    settings = world_config({**base.model_dump(), **changes})
    world = World(settings, options.seed)
    began = time.perf_counter()
    days = [Rows.concatenate(list(world.day(day))) for day in range(settings.days)]
    rows = Rows.concatenate(days)
    day = np.repeat(np.arange(settings.days), [len(part) for part in days])
    print(f"{len(rows):,} rows in {time.perf_counter() - began:.1f} s; click rate {rows.click.mean():.3f}")
    fields = encode(world, rows, day)
    test = (day >= settings.days - 2) & rows.is_exploration
    tune = (day == settings.days - 3) & rows.is_exploration
    request = day * (int(rows.request.max()) + 1) + rows.request
    truth = world.truth(rows.user[test], rows.video[test], rows.timestamp[test], rows.device[test])["click"]
    scores: dict[str, Floats] = {"truth": truth}
    scores["additive"], strength = additive(fields, day, settings.days, tune, test, request, rows.click)
    if not options.additive_only:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        scores["factorisation"] = factorisation(fields, world, day < settings.days - 2, test, options.epochs, options.seed)
    figures = {name: gauc(score, rows.click[test], request[test]) for name, score in scores.items()}
    expected = {name: expected_gauc(score, truth, request[test]) for name, score in scores.items()}
    extra = {"strength": strength, "click_rate": float(rows.click.mean()), "test_rows": int(test.sum()),
             "test_clicks": int(rows.click[test].sum())}  # fmt: skip
    report(options, settings, figures, expected, extra)


def encode(world: World, rows: Rows, day: NDArray[np.int64]) -> Fields:
    """The additive terms and the history of each row."""
    settings, videos = world.settings, world.videos
    hour = rows.timestamp % DAY_MS // 3_600_000
    terms = {
        "user": (rows.user, settings.users),
        "video": (rows.video, settings.videos),
        "author": (videos.author[rows.video], settings.authors),
        "topic": (videos.topic[rows.video], settings.topics),
        "device": (rows.device, len(DEVICES)),
        "hour": (hour, 24),
    }
    shown = (rows.position * len(DEVICES) + rows.device, settings.slate * len(DEVICES))
    return Fields(terms, shown, _history(rows, day), rows.click)


def _history(rows: Rows, day: NDArray[np.int64]) -> NDArray[np.int32]:
    """[n, HISTORY]: the user's clicks in requests before the row's, by the requests' order in time."""
    request = day * (int(rows.request.max()) + 1) + rows.request
    first_time = np.zeros(int(request.max()) + 1, np.int64)
    np.maximum.at(first_time, request, rows.timestamp - rows.position * 700)
    at = first_time[request]
    clicked = np.flatnonzero(rows.click > 0)
    clicked = clicked[np.lexsort((rows.position[clicked], at[clicked], rows.user[clicked]))]
    span = int(at.max() - at.min()) + 2
    key = rows.user[clicked] * span + (at[clicked] - at.min())
    end = np.searchsorted(key, rows.user * span + (at - at.min()))
    start = np.searchsorted(rows.user[clicked], rows.user)
    place = end[:, None] - 1 - np.arange(HISTORY)
    return np.where(place >= start[:, None], rows.video[clicked][np.maximum(place, 0)], -1).astype(np.int32)


def additive(
    fields: Fields,
    day: NDArray[np.int64],
    days: int,
    tune: NDArray[np.bool_],
    test: NDArray[np.bool_],
    request: NDArray[np.int64],
    click: NDArray[np.float32],
) -> tuple[Floats, float]:
    """Scores of the test rows without position, and the strength chosen on the rows to tune on."""
    matrix, blank = _one_hot(fields), _one_hot(fields, with_position=False)

    def fit(rows: NDArray[np.bool_], strength: float) -> Floats:
        model = LogisticRegression(C=strength, max_iter=1_000, tol=1e-6)
        return np.asarray(model.fit(matrix[rows], click[rows]).coef_[0])

    tuned = {}
    for strength in STRENGTHS:
        weights = fit(day < days - 3, strength)
        tuned[strength] = gauc(blank[tune] @ weights, click[tune], request[tune])["gauc"]
    best = max(STRENGTHS, key=lambda strength: tuned[strength])
    print("additive, L2 strength: GAUC on the day to tune on:", {s: round(v, 4) for s, v in tuned.items()})
    return blank[test] @ fit(day < days - 2, best), best


def _one_hot(fields: Fields, with_position: bool = True) -> csr_matrix:
    parts = [*fields.terms.values(), fields.shown]
    offsets = np.cumsum([0, *(size for _, size in parts)])
    kept = len(parts) if with_position else len(parts) - 1
    columns = np.stack([codes + offset for (codes, _), offset in zip(parts, offsets[:-1], strict=True)], axis=1)[:, :kept]
    n = len(columns)
    ones = np.ones(columns.size, np.float32)
    return csr_matrix((ones, columns.ravel(), np.arange(n + 1) * kept), shape=(n, int(offsets[-1])))


def factorisation(
    fields: Fields, world: World, train: NDArray[np.bool_], test: NDArray[np.bool_], epochs: int, seed: int
) -> Floats:
    """logit = sum of the terms + position x device + user . video, trained by Adam; scores of the test rows."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.keras.utils.set_random_seed(seed)
    names = list(fields.terms)
    sizes = {name: size for name, (_, size) in fields.terms.items()}
    bias = [tf.Variable(tf.zeros([size])) for size in [*sizes.values(), fields.shown[1]]]
    offers = {name: tf.Variable(tf.random.normal([sizes[name], DIMS], stddev=0.1)) for name in ("video", "author", "topic")}
    watches = {name: tf.Variable(tf.random.normal([sizes[name], DIMS], stddev=0.1)) for name in ("video", "author", "topic")}
    users = tf.Variable(tf.random.normal([sizes["user"], DIMS], stddev=0.1))
    parents = {"author": tf.constant(world.videos.author, tf.int32), "topic": tf.constant(world.videos.topic, tf.int32)}

    def of_video(tables: dict[str, Any], videos: Any) -> Any:
        of_parents = [tf.gather(tables[name], tf.gather(parents[name], videos)) for name in parents]
        return tf.add_n([tf.gather(tables["video"], videos), *of_parents])

    def forward(codes: Any, history: Any, shown: Any) -> tuple[Any, Any]:
        known = tf.cast(history >= 0, tf.float32)[:, :, None]
        watched = tf.reduce_sum(of_video(watches, tf.maximum(history, 0)) * known, 1) / (tf.reduce_sum(known, 1) + 3.0)
        own, offer = tf.gather(users, codes[:, 0]), of_video(offers, codes[:, 1])
        linear = sum(tf.gather(table, codes[:, i]) for i, table in enumerate(bias[:-1]))
        if shown is not None:
            linear += tf.gather(bias[-1], shown)
        size = tf.reduce_mean(tf.reduce_sum(own**2 + tf.gather(offers["video"], codes[:, 1]) ** 2, 1))
        return linear + tf.reduce_sum((own + watched) * offer, 1), size

    variables = [*bias, *offers.values(), *watches.values(), users]
    optimizer = tf.keras.optimizers.Adam(RATE)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(codes: Any, history: Any, shown: Any, click: Any) -> Any:
        with tf.GradientTape() as tape:
            logit, size = forward(codes, history, shown)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(click, logit)) + DECAY * size
        optimizer.apply([tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)], variables)
        return loss

    codes = np.stack([fields.terms[name][0] for name in names], axis=1).astype(np.int32)
    rng, rows = np.random.default_rng(seed), np.flatnonzero(train)
    for epoch in range(epochs):
        order, total = rng.permutation(rows), 0.0
        batches = np.array_split(order, max(len(order) // BATCH, 1))
        for at in batches:
            total += float(step(codes[at], fields.history[at], fields.shown[0][at].astype(np.int32), fields.click[at]))
        print(f"factorisation, epoch {epoch + 1}: loss {total / len(batches):.4f}", flush=True)
    return np.asarray(forward(tf.constant(codes[test]), tf.constant(fields.history[test]), None)[0])


def gauc(score: Floats, click: Floats, request: NDArray[np.int64]) -> dict[str, float]:
    """GAUC with its standard error over requests, and the share of rows in requests with both classes."""
    matrix, clicks = _by_request(score, request), _by_request(click, request)
    pairs = (clicks[:, :, None] == 1) & (clicks[:, None, :] == 0)
    return _mean_over_requests(matrix, pairs.astype(np.float64), (~np.isnan(clicks)).sum(axis=1), len(score))


def expected_gauc(score: Floats, truth: Floats, request: NDArray[np.int64]) -> dict[str, float]:
    """The same with pairs weighted by P(first clicked, second not), were both examined: no noise of the clicks."""
    matrix, p = _by_request(score, request), np.nan_to_num(_by_request(truth, request))
    known = ~np.isnan(matrix)
    pairs = (p[:, :, None] * (1 - p)[:, None, :]) * (known[:, :, None] & known[:, None, :])
    pairs *= ~np.eye(matrix.shape[1], dtype=bool)
    return _mean_over_requests(matrix, pairs, known.sum(axis=1), len(score))


def _mean_over_requests(score: Floats, pairs: Floats, sizes: NDArray[np.int64], rows: int) -> dict[str, float]:
    ahead = (score[:, :, None] > score[:, None, :]) + 0.5 * (score[:, :, None] == score[:, None, :])
    total = pairs.sum(axis=(1, 2))
    on = total > 0
    auc, weight = (ahead * pairs).sum(axis=(1, 2))[on] / total[on], sizes[on] / sizes[on].sum()
    mean = float(auc @ weight)
    error = float(np.sqrt((weight**2 * (auc - mean) ** 2).sum()))
    return {"gauc": mean, "error": error, "rows_share": float(sizes[on].sum() / rows), "requests": int(on.sum())}


def _by_request(values: Floats, request: NDArray[np.int64]) -> Floats:
    """[R, most rows], NaN where a request has fewer."""
    order = np.argsort(request, kind="stable")
    _, start, count = np.unique(request[order], return_index=True, return_counts=True)
    result = np.full((len(start), int(count.max())), np.nan)
    result[np.repeat(np.arange(len(start)), count), np.arange(len(order)) - np.repeat(start, count)] = values[order]
    return result


def report(
    options: argparse.Namespace,
    settings: WorldConfig,
    figures: dict[str, Any],
    expected: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """The table on the console, and the file."""
    answer: dict[str, Any] = {"rows": options.rows, "seed": options.seed, **extra, "machine": platform.machine()}
    print(f"{'':14} {'GAUC':>8} {'error':>8} {'share':>7} {'closed':>7} | {'expected':>8} {'share':>7} {'closed':>7}")
    for name in figures:
        line = {}
        for kind, values in (("logged", figures), ("expected", expected)):
            top, base, here = (values[which]["gauc"] for which in ("truth", "additive", name))
            line[kind] = {**values[name], "share": (here - 0.5) / (top - 0.5), "closed": (here - base) / (top - base)}
        a, b = line["logged"], line["expected"]
        print(f"{name:14} {a['gauc']:8.4f} {a['error']:8.4f} {a['share']:7.1%} {a['closed']:7.1%}"
              f" | {b['gauc']:8.4f} {b['share']:7.1%} {b['closed']:7.1%}")  # fmt: skip
        answer[name] = line
    answer["settings"] = settings.model_dump()
    folder = Home.from_environment().benchmarks
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "simulator_gap.json").write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    print(f"written to {folder / 'simulator_gap.json'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="SETTING=VALUE", help="other settings")
    parser.add_argument("--epochs", type=int, default=5, help="of the factorisation")
    parser.add_argument("--additive-only", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
