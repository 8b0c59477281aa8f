"""A bundle on days after its window: its weights stay as they are, its features advance with the log."""

from collections.abc import Sequence
from datetime import date
from functools import cached_property

from data.columns import Batch
from data.config import Config
from data.features.state import Encoded
from data.home import Home
from data.log import read_day
from models.bundle import Bundle
from models.calibration import Calibration
from training.days import read_tables
from training.figures import Scored
from training.learner import Learner
from training.score import score_day


class Frozen:
    """A bundle as it predicts later days, each with all that was known before it.

    Args:
        bundle: a trained one, not a refreshed one: its window's end is where its features stand.
        config: by which the days are read, and of which figures are wanted (slices); features and objectives are the
            bundle's.
    """

    def __init__(self, bundle: Bundle, config: Config, home: Home) -> None:
        self.bundle = bundle
        self.config = bundle.config.model_copy(update={"evaluation": config.evaluation})
        self._home, self._asked = home, config
        self._taken: list[date] = []
        self._encoded: tuple[date, Batch, Encoded] | None = None

    def score(self, day: date, before: Sequence[date], open_labels: frozenset[str] = frozenset()) -> Scored:
        """The rows of ``day``, with the features as they stand after the days ``before`` it.

        Raises:
            ValueError: features have taken in other days already, and don't go back.
        """
        if self._taken != list(before[: len(self._taken)]):
            raise ValueError(f"features have taken in {self._taken}, which is no beginning of {list(before)}")
        for earlier in before[len(self._taken) :]:
            self.learner.take_in(*self._encode(earlier, frozenset()))
            self._taken.append(earlier)
        day, batch, encoded = self._encode(day, open_labels)
        baselines = self.learner.rates.baselines(encoded.video)
        return score_day(self.learner.trainer, self.learner.state, batch, day, encoded, baselines, self.calibration)

    @cached_property
    def calibration(self) -> Calibration:
        """The bundle's, as it is served."""
        return Calibration.load(self.bundle.extra, self.config.objective_names)

    @cached_property
    def learner(self) -> Learner:
        """Loaded when it is first needed: a night without a new day needs no network."""
        return Learner.from_bundle(self.bundle, self.config, read_tables(self._home, self.config))

    def _encode(self, day: date, open_labels: frozenset[str]) -> tuple[date, Batch, Encoded]:
        if self._encoded is None or self._encoded[0] != day:
            batch = read_day(self._home, self._asked, day)
            self._encoded = day, batch, self.learner.encode(day, batch, open_labels)
        return self._encoded
