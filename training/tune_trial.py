"""One trial: a configuration trained day by day, each judged day scored before it is trained on."""

import gc
from collections.abc import Generator, Iterator

import numpy as np

from data.config import Config
from training import measure
from training.bootstrap import Resamples
from training.compare_cell import Floats, Judged, Spec, new_learner
from training.compare_features import EncodedDays
from training.measure import Rows
from training.tune_space import SMALLER_IS_BETTER, Space


def run_trial(space: Space, config: Config, encoded: EncodedDays) -> Generator[dict[str, float | None], None, None]:
    """Yields, after each judged day, the day's metrics by name; None where undefined. To close it is to prune."""
    train, judge = space.train_days, space.judge_days
    spec = Spec(config, config, encoded.folder, encoded.folder, tuple(train), tuple(judge), 0)
    learner = new_learner(spec, encoded)
    try:
        for day in encoded.sizes:
            rows = encoded.encoded(day, config.objective_names)
            if day in judge:
                at_row, slates = learner.trainer.predict(rows.blocks)[0], encoded.slate_blocks(day)
                at_slate = at_row if slates is None else learner.trainer.predict(slates)[0]
                yield dict(_metrics(space, config, Judged.of(encoded, [day], config.objective_names), at_row, at_slate))
            if day in train or (day in judge and day != judge[-1]):
                learner.train(day, rows)
            learner.trainer.grow(encoded.sizes[day])
    finally:
        del learner
        gc.collect()  # traced functions hold each other: they would stay until after the next trial


def _metrics(
    space: Space, config: Config, rows: Judged, at_row: Floats, at_slate: Floats
) -> Iterator[tuple[str, float | None]]:
    none = Resamples(rows.user, 0, seed=1)
    for text in space.metrics:
        name, _, metric = text.partition(".")
        k = config.objective_names.index(name)
        known = np.flatnonzero(~np.isnan(rows.targets[:, k]))
        own = Rows(rows.targets[known, k], at_row[known, k], at_slate[known, k], rows.slate[known], none.row_user[known])
        yield text, measure.measure(config.objectives[k].kind, own, none)[metric].value


def value_of(days: list[dict[str, float | None]]) -> float | None:
    """The mean over metrics of the mean over the days on which each is defined; larger is better. None where a metric is
    defined on none."""
    means = []
    for name in days[0]:
        known = [value for day in days if (value := day[name]) is not None]
        if not known:
            return None
        sign = -1.0 if name.partition(".")[2] in SMALLER_IS_BETTER else 1.0
        means.append(sign * float(np.mean(known)))
    return float(np.mean(means))
