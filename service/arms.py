"""The experiments that split the served traffic, as their files say."""

import structlog

from data.errors import WatchNextError
from data.experiments import Experiment, Treatment, arm_of, load_experiments
from data.home import Home
from service.serving import Serving

log = structlog.get_logger()


class Arms:
    """Which arm a request belongs to. Reads are one look at an attribute, so any number of threads may share it."""

    def __init__(self, home: Home) -> None:
        self._folder = home.root / "experiments"
        self._experiments: tuple[Experiment, ...] = ()

    def load(self, name: str) -> None:
        """Read the experiments on requests of the bundle ``name``. Raises ConfigError; what there was stays."""
        self._experiments = load_experiments(self._folder, name)

    def reload(self, name: str) -> None:
        """The same, while requests are answered: a wrong file is logged, and what there was stays."""
        try:
            self.load(name)
        except WatchNextError as error:
            log.error("experiments left as they were", reason=str(error))

    @property
    def versions(self) -> frozenset[int]:
        """The bundles that some arm is served by."""
        return frozenset(arm.bundle for e in self._experiments for arm in e.arms if arm.bundle is not None)

    def treatment(self, user_id: str, timestamp: int, serving: Serving) -> Treatment:
        """What the user's request at ``timestamp`` (ms) is served with and logged under."""
        return arm_of(self._experiments, user_id, timestamp, serving.config.timezone)
