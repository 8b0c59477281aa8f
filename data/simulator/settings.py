"""What a simulated world is like, and its random streams."""

from enum import IntEnum
from typing import Annotated, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from data.days import parse_day
from data.errors import ConfigError, WatchNextError
from data.frozen import Frozen

OUTCOMES = ("click", "watch_time", "like", "follow", "dismiss")
DEVICES = ("phone", "tablet", "desktop", "tv")

Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0)]


class QuotasConfig(Frozen):
    """Candidates that each generator puts forward per request, before duplicates are removed. A further
    ``slate`` candidates are spread evenly over the catalogue."""

    topic: int = Field(12, ge=0)
    popular: int = Field(8, ge=0)
    co_watch: int = Field(10, ge=0)
    fresh: int = Field(6, ge=0)


class WorldConfig(Frozen):
    """The settings of a world. The defaults are those of a million rows; :meth:`of_size` fits others.

    Effects are standard deviations on the logit scale unless said otherwise.
    """

    rows: int = Field(1_000_000, ge=1)  # impressions over all days, rounded up to whole requests
    days: int = Field(10, ge=1)
    first_day: str = "2025-01-06"  # a UTC day
    users: int = Field(5_100, ge=1)
    videos: int = Field(2_200, ge=1)
    authors: int = Field(220, ge=1)
    topics: int = Field(12, ge=1)
    age_groups: int = Field(6, ge=1)
    regions: int = Field(4, ge=1)
    new_users: Share = 0.1  # of the users sign up during the days, evenly
    new_videos: Share = 0.2  # of the videos are uploaded during the days, evenly

    slate: int = Field(10, ge=1)
    session: int = Field(4, ge=1)  # most requests in one sitting
    quotas: QuotasConfig = QuotasConfig()
    uniform_requests: Share = 0.3  # of the requests explore in every slot
    explore: Share = 0.05  # the chance that a slot of any other request explores
    policy_noise: Scale = 1.0  # of the logging policy's score, anew for each candidate
    policy_taste_error: Scale = 1.2  # of what it believes of each dimension of a user's taste, lasting
    policy_video_error: Scale = 0.8  # of what it believes of a video, lasting: confounds position with merit

    position_bias: Scale = 0.75  # examination is (1 + position) ** -(position_bias * the device's exponent); 0: none
    taste: Scale = 1.8  # user x video: what ids and histories are for
    taste_dims: int = Field(3, ge=1)
    video_effect: Scale = 0.4
    user_effect: Scale = 0.4
    freshness: Scale = 0.3  # mean rise of a video's click logit on its first day
    freshness_days: float = Field(3.0, gt=0)  # after which 1/e of the rise is left
    device_effect: Scale = 0.15  # device x length
    hour_effect: Scale = 0.2  # hour x topic
    topic_share: Share = 0.8  # of the variance of a video's taste vector that its topics give
    author_share: Share = 0.12  # that its author gives; the rest is its own and in no table
    segment_share: Share = 0.25  # of the variance of a user's taste that age group and region give
    drift: Share = 0.06  # a day's step of a user's own taste (its variance stays 1)

    agreement: float = Field(0.6, ge=-1, le=1)  # correlation of being satisfied with what makes one click, clickbait aside
    conflict: Scale = 1.0  # of clickbait: raises click, lowers watch time and like, raises dismissal; 0: none
    clickbait_share: Share = 0.25  # of the videos
    satisfaction: Scale = 1.0  # of satisfaction's user x video part
    click_base: float = -1.0  # logits of an average video seen by an average user
    watch_base: float = -0.4  # of the share of the video watched, given a click
    like_base: float = -1.9  # given a click
    follow_base: float = -3.6  # given a click
    dismiss_base: float = -2.8  # given a click
    dismiss_unclicked: float = -5.0  # given none

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            parse_day(self.first_day)
        except WatchNextError as error:
            raise ValueError(f"first_day: {error}") from None
        if self.initial_videos < self.slate:
            raise ValueError(f"expected at least {self.slate} videos (a slate) at the start, got {self.initial_videos}")
        if self.initial_users < 1:
            raise ValueError("expected at least one user at the start, got none")
        if self.topic_share + self.author_share > 1:
            raise ValueError(f"topic_share + author_share is over 1: {self.topic_share} + {self.author_share}")
        return self

    @property
    def initial_users(self) -> int:
        return self.users - round(self.users * self.new_users)

    @property
    def initial_videos(self) -> int:
        return self.videos - round(self.videos * self.new_videos)

    @property
    def requests(self) -> int:
        return -(-self.rows // self.slate)

    @classmethod
    def of_size(cls, rows: int, **changes: object) -> "WorldConfig":
        """A world whose users and videos have about as many impressions each as in the default one."""
        users, videos, authors = max(50, rows * 51 // 10_000), max(120, rows * 22 // 10_000), max(20, rows * 22 // 100_000)
        return world_config({"rows": rows, "users": users, "videos": videos, "authors": authors, **changes})


class SavedWorld(Frozen):
    """What a simulated log keeps of its world."""

    seed: int
    settings: WorldConfig


def world_config(values: dict[str, object]) -> WorldConfig:
    """Settings from plain values.

    Raises:
        ConfigError: naming the setting, what was expected and what came.
    """
    try:
        return WorldConfig.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, detail['loc'])) or 'settings'}: "
            f"{detail['msg'].removeprefix('Value error, ')}, got {_short(detail['input'])}"
            for detail in error.errors()
        ]
        raise ConfigError("\n".join(["the world's settings are not valid:", *lines])) from None


def _short(value: object) -> str:
    return repr(value) if not isinstance(value, dict) else "these settings together"


class Purpose(IntEnum):
    """What a random stream is for. The numbers are part of a world's identity: never reuse or reorder them."""

    TOPICS = 0
    AUTHORS = 1
    VIDEOS = 2
    USERS = 3
    DRIFT = 4
    POLICY = 5
    SESSIONS = 6
    CANDIDATES = 7
    SLOTS = 8
    OUTCOMES = 9
    VISITS = 10
    REACTIONS = 11
    WARM_UP = 12


def stream(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """The random stream of one kind of thing (on one day, in one chunk): independent of every other."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(int(purpose), *keys))))
