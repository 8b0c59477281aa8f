"""The canary: a version that serves a sticky share of the users, for as long as it does no worse than the champion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from models.rollouts import Rollout
from service.bands import Figures, left
from service.serving import Serving
from service.settings import Settings
from service.tallies import Report, Tallies

Elsewhere = Sequence[Mapping[int, Report]]
"""Of each other worker, by version."""


@dataclass(frozen=True)
class Canary:
    """A canary that serves, beside the champion that it is held against."""

    rollout: Rollout
    serving: Serving
    champion: int
    tallies: Tallies

    @classmethod
    def beside(cls, champion: Serving, serving: Serving, rollout: Rollout) -> "Canary":
        return cls(rollout, serving, champion.version, Tallies(champion, serving))

    def takes(self, user_id: str) -> bool:
        """The same users every time; with a larger share, those and others."""
        return position(self.rollout.salt, user_id) < self.rollout.share

    def verdict(self, settings: Settings, elsewhere: Elsewhere = ()) -> tuple[str, str] | None:
        """Which band it has left, as (name, sentence)."""
        return left(*self.figures(elsewhere), settings)

    def figures(self, elsewhere: Elsewhere = ()) -> tuple[Figures, Figures]:
        """The champion's, and its own, with what other workers report of the two."""
        champion, own = (self.tallies.figures(side, [reports[side] for reports in elsewhere]) for side in self.sides)
        return champion, own

    @property
    def sides(self) -> tuple[int, int]:
        return self.champion, self.rollout.version


def position(salt: str, user_id: str) -> float:
    """A user's place in [0, 1), uniform over users."""
    digest = blake2b(f"{salt}\0{user_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)
