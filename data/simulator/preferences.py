"""The true probabilities: what each outcome depends on.

    P(click | position)    = P(examine | position, device) * P(click | examined)
    logit P(click|examined) = base + user + quality + conflict * clickbait + freshness * exp(-age) + taste . taste
                              + device x length + hour x topic
    satisfaction s          = user + quality' - conflict * clickbait + taste' . taste'
    watch_time | click      ~ Gamma of mean duration * sigmoid(watch_base + s)
    P(like | click)         = sigmoid(like_base + s), follow alike; P(dismiss | click) = sigmoid(dismiss_base - s)

Quality' and taste' are correlated by ``agreement`` with what makes one click. Tastes and ages change at midnight (UTC).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.simulator.entities import DAY_MS, Floats, Ints, Users, Videos
from data.simulator.settings import DEVICES, Purpose, WorldConfig, stream

EXAMINATION_EXPONENTS = np.array([0.8, 0.65, 0.45, 1.0], np.float32)
"""By device. A desktop shows most of a slate at once, a television two or three."""
_LENGTH_LIKED = np.array([-1.0, 0.0, 0.4, 1.4], np.float32)
"""By device: short videos on a phone, long ones on a television."""
_CLICKBAIT_CLICK, _CLICKBAIT_SATISFACTION = np.float32(0.6), np.float32(1.2)


@dataclass(frozen=True)
class DayTastes:
    """What changes from day to day. The logging policy has its own, mistaken one."""

    user_taste: Floats  # [U, 2 * D]
    video_click: Floats  # [V] the video's part of the click logit


class Preferences:
    """The true preferences of every user for every video on every day."""

    def __init__(self, settings: WorldConfig, seed: int, start: int, users: Users, videos: Videos) -> None:
        self.settings, self.seed, self.start = settings, seed, start
        self.users, self.videos = users, videos
        rho, rest = settings.agreement, (1 - settings.agreement**2) ** 0.5
        conflict = np.float32(settings.conflict)
        liked = rho * videos.quality[:, 0] + rest * videos.quality[:, 1]
        self._video_click = settings.video_effect * videos.quality[:, 0] + conflict * _CLICKBAIT_CLICK * videos.clickbait
        self._video_satisfied = (0.5 * liked - conflict * _CLICKBAIT_SATISFACTION * videos.clickbait).astype(np.float32)
        hours = 2 * np.pi * (np.arange(24)[:, None] - videos.topic_hour) / 24
        self._hour_topic = (settings.hour_effect * 2**0.5 * np.cos(hours)).astype(np.float32)
        self._walk: tuple[int, Floats] = (0, users.own_taste)

    def day(self, index: int) -> DayTastes:
        """Day ``index`` (from 0): tastes after that many steps of the walk, freshness at that age."""
        age = np.maximum(self.start + index * DAY_MS - self.videos.upload, 0) / (DAY_MS * self.settings.freshness_days)
        video_click = self._video_click + self.videos.freshness * np.exp(-age)
        return DayTastes(self.users.segment_taste + self._own_taste(index), video_click.astype(np.float32))

    def _own_taste(self, index: int) -> Floats:
        """x_d = sqrt(1 - drift^2) x_(d-1) + drift * e_d, from the last day asked for if that was earlier."""
        day, taste = self._walk if self._walk[0] <= index else (0, self.users.own_taste)
        keep, step = (1 - self.settings.drift**2) ** 0.5, self.settings.drift * (1 - self.settings.segment_share) ** 0.5
        while day < index:
            day += 1
            noise = stream(self.seed, Purpose.DRIFT, day).standard_normal(taste.shape, np.float32)
            taste = np.float32(keep) * taste + np.float32(step) * noise
        self._walk = (day, taste)
        return taste

    def logits(self, tastes: DayTastes, users: Ints, videos: Ints, devices: Ints, hours: Ints) -> tuple[Floats, Floats]:
        """Logit of a click if examined, and satisfaction (0: average), for arrays of one shape (or that broadcast)."""
        settings, dims = self.settings, self.settings.taste_dims
        mine, theirs = tastes.user_taste[users], self.videos.taste[videos]
        scale = np.float32(dims**-0.5)
        first = np.einsum("...d,...d->...", mine[..., :dims], theirs[..., :dims]) * scale
        second = np.einsum("...d,...d->...", mine[..., dims:], theirs[..., dims:]) * scale
        context = np.float32(settings.device_effect) * _LENGTH_LIKED[devices] * self.videos.length[videos]
        context = context + self._hour_topic[hours, self.videos.topic[videos]]
        bias = self.users.bias[users]
        click = settings.click_base + bias[..., 0] + tastes.video_click[videos]
        click = click + np.float32(settings.taste) * first + context
        rho, rest = np.float32(settings.agreement), np.float32((1 - settings.agreement**2) ** 0.5)
        satisfied = np.float32(settings.satisfaction) * (rho * first + rest * second)
        return click, satisfied + bias[..., 1] + self._video_satisfied[videos]

    def outcomes(self, click: Floats, satisfied: Floats, videos: Ints) -> Mapping[str, Floats]:
        """From logits: click, and given a click watch_time (seconds), like, follow, dismiss; dismiss_unclicked."""
        settings = self.settings
        unclicked = sigmoid(np.array(settings.dismiss_unclicked, np.float32))
        return {
            "click": sigmoid(click),
            "watch_time": self.videos.duration[videos] * sigmoid(settings.watch_base + satisfied),
            "like": sigmoid(settings.like_base + satisfied),
            "follow": sigmoid(settings.follow_base + satisfied),
            "dismiss": sigmoid(settings.dismiss_base - satisfied),
            "dismiss_unclicked": np.full(np.shape(click), unclicked, np.float32),
        }

    def examination(self, positions: NDArray[np.integer], devices: Ints) -> Floats:
        """P(examine | position, device)."""
        exponent = np.float32(-self.settings.position_bias) * EXAMINATION_EXPONENTS[devices]
        return np.asarray((1 + positions).astype(np.float32) ** exponent, np.float32)


def sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)), np.float32)


assert len(EXAMINATION_EXPONENTS) == len(_LENGTH_LIKED) == len(DEVICES)
