"""Topics, authors, videos and users: what their tables show, and what nobody sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.days import day_start, parse_day
from data.simulator.settings import DEVICES, Purpose, WorldConfig, stream

DAY_MS = 86_400_000
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Videos:
    """Row v is video ``v<v>``; rows are ordered by upload, so that those there at a time are the first so many."""

    upload: Ints  # [V] ms
    author: Ints  # [V]
    topic: Ints  # [V]
    second_topic: Ints  # [V] -1: none
    duration: Floats  # [V] seconds
    length: Floats  # [V] log duration, standardised
    taste: Floats  # [V, 2 * D] latent: what makes one click, what satisfies besides
    quality: Floats  # [V, 2] latent: the same two
    clickbait: Floats  # [V] latent, >= 0, 0 for most
    freshness: Floats  # [V] latent: rise of the click logit at upload
    topic_taste: Floats  # [T, 2 * D] latent
    topic_hour: Floats  # [T] latent: the hour at which a topic is liked best


@dataclass(frozen=True)
class Users:
    """Row u is user ``u<u>``; rows are ordered by signing up."""

    signup: Ints  # [U] ms
    age_group: Ints  # [U]
    region: Ints  # [U]
    device: Ints  # [U] the one mostly used
    activity: NDArray[np.float64]  # [U] latent: relative number of sittings
    hour: Floats  # [U] latent: of the day's most likely sitting
    segment_taste: Floats  # [U, 2 * D] latent: what age group and region give
    own_taste: Floats  # [U, 2 * D] latent: the rest, on the first day
    bias: Floats  # [U, 2] latent: readiness to click, to be satisfied


def draw_videos(settings: WorldConfig, seed: int) -> Videos:
    dims, count = 2 * settings.taste_dims, settings.videos
    rng = stream(seed, Purpose.TOPICS)
    topic_taste = _normal(rng, settings.topics, dims)
    topic_hour = rng.uniform(0, 24, settings.topics).astype(np.float32)
    rng = stream(seed, Purpose.AUTHORS)
    author_topic = rng.integers(0, settings.topics, settings.authors)
    author_taste = _normal(rng, settings.authors, dims)
    rng = stream(seed, Purpose.VIDEOS)
    upload = _arrivals(rng, settings, settings.initial_videos, count)
    author = (settings.authors * rng.random(count) ** 1.5).astype(np.int64)  # some upload more than others
    topic = np.where(rng.random(count) < 0.8, author_topic[author], rng.integers(0, settings.topics, count))
    second = np.where(rng.random(count) < 0.4, rng.integers(0, settings.topics, count), -1)
    second = np.where(second == topic, -1, second)
    of_topic = np.where((second >= 0)[:, None], 0.8 * topic_taste[topic] + 0.6 * topic_taste[second], topic_taste[topic])
    shares = settings.topic_share, settings.author_share, 1 - settings.topic_share - settings.author_share
    parts = of_topic, author_taste[author], _normal(rng, count, dims)
    taste = sum(np.float32(max(share, 0.0) ** 0.5) * part for share, part in zip(shares, parts, strict=True))
    length = _normal(rng, count)
    bait = np.where(rng.random(count) < settings.clickbait_share, 0.4 + np.abs(_normal(rng, count)), 0)
    return Videos(
        upload=upload,
        author=author,
        topic=topic,
        second_topic=second,
        duration=np.round(np.clip(60 * np.exp(0.7 * length), 8, 900)).astype(np.float32),
        length=length,
        taste=np.asarray(taste, np.float32),
        quality=_normal(rng, count, 2),
        clickbait=bait.astype(np.float32),
        freshness=(settings.freshness * rng.exponential(1.0, count)).astype(np.float32),
        topic_taste=topic_taste,
        topic_hour=topic_hour,
    )


def draw_users(settings: WorldConfig, seed: int) -> Users:
    dims, count = 2 * settings.taste_dims, settings.users
    rng = stream(seed, Purpose.USERS)
    of_age, of_region = _normal(rng, settings.age_groups, dims), _normal(rng, settings.regions, dims)
    age_group = rng.integers(0, settings.age_groups, count)
    region = rng.integers(0, settings.regions, count)
    share = settings.segment_share
    return Users(
        signup=_arrivals(rng, settings, settings.initial_users, count),
        age_group=age_group,
        region=region,
        device=rng.choice(len(DEVICES), count, p=[0.55, 0.1, 0.25, 0.1]),
        activity=rng.gamma(4.0, 0.25, count),
        hour=((19 + 4 * rng.standard_normal(count)) % 24).astype(np.float32),
        segment_taste=np.float32((share / 2) ** 0.5) * (of_age[age_group] + of_region[region]),
        own_taste=np.float32((1 - share) ** 0.5) * _normal(rng, count, dims),
        bias=np.float32(settings.user_effect) * _normal(rng, count, 2),
    )


def _arrivals(rng: np.random.Generator, settings: WorldConfig, initial: int, count: int) -> Ints:
    """Sorted times [count]: the initial ones over the 30 days before the first day, the rest evenly over the days.

    Nothing arrives in the last four hours of a day, so that a new user's first sitting ends on it.
    """
    start = day_start(parse_day(settings.first_day), "UTC")
    new = np.arange(count - initial) * settings.days // max(count - initial, 1)
    day = np.concatenate([rng.integers(-30, 0, initial), new])
    return np.sort(start + day * DAY_MS + rng.integers(0, 20 * 3_600_000, count))


def _normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, np.float32)
