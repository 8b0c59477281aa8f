"""The product's own recommender: four generators, each with its bias, and a ranking that knows the truth badly."""

from dataclasses import dataclass

import numpy as np

from data.simulator.entities import DAY_MS, Floats, Ints
from data.simulator.preferences import DayTastes, Preferences
from data.simulator.settings import Purpose, WorldConfig, stream

NONE = -1
"""No query video; or a place in the candidates that a duplicate left."""


@dataclass(frozen=True)
class Requests:
    """Requests [R], all of one day."""

    user: Ints
    timestamp: Ints  # ms
    device: Ints
    query: Ints  # the video last watched in this sitting, or NONE

    @property
    def hour(self) -> Ints:
        return self.timestamp % DAY_MS // 3_600_000


class Policy:
    """The generators and the score of one day. What it believes of tastes and videos is off by errors that last."""

    def __init__(self, preferences: Preferences, day: int) -> None:
        self.settings, self.videos, self.preferences = preferences.settings, preferences.videos, preferences
        tastes = preferences.day(day)
        self.beliefs = _beliefs(self.settings, preferences.seed, tastes)
        known = int(np.searchsorted(self.videos.upload, preferences.start + day * DAY_MS))
        self._topic_order = np.argsort(self.videos.topic[:known], kind="stable")
        bounds = np.searchsorted(self.videos.topic[self._topic_order], np.arange(self.settings.topics + 1))
        self._topic_start, self._topic_size = bounds[:-1], np.diff(bounds)
        self._popularity = np.cumsum(np.exp(2.0 * tastes.video_click[:known].astype(np.float64)))

    def candidates(self, requests: Requests, rng: np.random.Generator) -> Ints:
        """Videos [R, C] in order of id, uploaded before the request; duplicates are NONE. At least ``slate`` are left."""
        quotas = self.settings.quotas
        known = np.searchsorted(self.videos.upload, requests.timestamp)[:, None]
        parts = [
            self._of_topic(self._topics(requests, quotas.topic, rng), known, rng),
            self._popular(len(known), quotas.popular, rng),
            self._co_watch(requests, quotas.co_watch, known, rng),
            self._fresh(known, quotas.fresh, rng),
            _spread(known, self.settings.slate, rng),
        ]
        merged = np.sort(np.concatenate(parts, axis=1), axis=1)
        merged[:, 1:][merged[:, 1:] == merged[:, :-1]] = NONE
        return merged

    def score(self, requests: Requests, candidates: Ints, rng: np.random.Generator) -> Floats:
        """What the slate is ordered by [R, C]: believed click logit and satisfaction, and noise; -inf at NONE."""
        column = (requests.user[:, None], candidates, requests.device[:, None], requests.hour[:, None])
        click, satisfied = self.preferences.logits(self.beliefs, *column)
        noise = rng.standard_normal(click.shape, np.float32)
        score = click + np.float32(0.5) * satisfied + np.float32(self.settings.policy_noise) * noise
        return np.where(candidates == NONE, np.float32(-np.inf), score)

    def _topics(self, requests: Requests, count: int, rng: np.random.Generator) -> Ints:
        """Topics [R, count] drawn by the user's believed taste for them: softmax(1.5 * affinity)."""
        dims = self.settings.taste_dims
        affinity = self.beliefs.user_taste[requests.user, :dims] @ self.videos.topic_taste[:, :dims].T
        affinity *= np.float32(dims**-0.5)
        share = np.exp(np.float32(1.5) * (affinity - affinity.max(axis=1, keepdims=True)))
        total = np.cumsum(share, axis=1)
        drawn = rng.random((len(share), count), np.float32) * total[:, -1:]
        return np.asarray(np.minimum((total[:, None, :] < drawn[:, :, None]).sum(axis=2), self.settings.topics - 1))

    def _of_topic(self, topics: Ints, known: Ints, rng: np.random.Generator) -> Ints:
        """A video of each topic, uniformly over those there since before the day; any video where a topic has none."""
        size = self._topic_size[topics]
        drawn = rng.random(topics.shape)
        place = np.minimum(self._topic_start[topics] + (drawn * size).astype(np.int64), len(self._topic_order) - 1)
        return np.where(size > 0, self._topic_order[place], (drawn * known).astype(np.int64))

    def _popular(self, rows: int, count: int, rng: np.random.Generator) -> Ints:
        """Drawn by click appeal alone, clickbait included."""
        drawn = rng.random((rows, count)) * self._popularity[-1]
        return np.asarray(np.minimum(np.searchsorted(self._popularity, drawn), len(self._popularity) - 1))

    def _co_watch(self, requests: Requests, count: int, known: Ints, rng: np.random.Generator) -> Ints:
        """Of the query video's topic, the nearer half to it; without a query, of one of the user's topics, to the user."""
        if count == 0:
            return np.zeros((len(known), 0), np.int64)
        asked = (requests.query != NONE)[:, None]
        topic = np.where(asked, self.videos.topic[requests.query][:, None], self._topics(requests, 1, rng))
        found = self._of_topic(np.repeat(topic, 2 * count, axis=1), known, rng)
        dims = self.settings.taste_dims
        anchor = np.where(asked, self.videos.taste[requests.query, :dims], self.beliefs.user_taste[requests.user, :dims])
        nearness = np.einsum("rd,rcd->rc", anchor, self.videos.taste[found][..., :dims])
        return np.take_along_axis(found, np.argpartition(-nearness, count - 1, axis=1)[:, :count], axis=1)

    def _fresh(self, known: Ints, count: int, rng: np.random.Generator) -> Ints:
        """Among the newest tenth, the newest most."""
        back = (rng.random((len(known), count)) ** 2 * 0.1 * known).astype(np.int64)
        return known - 1 - back


def _spread(known: Ints, count: int, rng: np.random.Generator) -> Ints:
    """``count`` distinct videos [R, count] at even steps through the catalogue from a random start."""
    start = (rng.random((len(known), 1)) * known).astype(np.int64)
    return (start + np.arange(count) * (known // count)) % known


def _beliefs(settings: WorldConfig, seed: int, tastes: DayTastes) -> DayTastes:
    rng = stream(seed, Purpose.POLICY)
    of_video = np.float32(settings.policy_video_error) * rng.standard_normal(len(tastes.video_click), np.float32)
    of_user = np.float32(settings.policy_taste_error) * rng.standard_normal(tastes.user_taste.shape, np.float32)
    return DayTastes(tastes.user_taste + of_user, tastes.video_click + of_video)
