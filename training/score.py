"""Score the rows of a day that the network has not been trained on."""

from collections.abc import Mapping
from datetime import date

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Strings
from data.config import Config
from data.features.state import Encoded, FeatureState
from models.calibration import Calibration, Predictions
from models.step import Trainer
from training.figures import Scored


def score_day(
    trainer: Trainer,
    state: FeatureState,
    batch: Batch,
    day: date,
    encoded: Encoded,
    baselines: Mapping[str, NDArray[np.float32]],
    calibration: Calibration,
    slate_baselines: Mapping[str, NDArray[np.float32]] | None = None,
) -> Scored:
    """Calibrated predictions at each row's own feature time and, for GAUC, as of its slate's first row."""
    raw, utilisation, entropy, live = trainer.predict_with_gates(encoded.blocks)
    predictions = calibration.apply(raw)
    return Scored(
        day=day,
        predictions=predictions,
        slate_predictions=predict_slates(trainer, state, batch, day, encoded, predictions, calibration),
        targets=encoded.targets,
        user=encoded.user,
        slate=encoded.slate,
        is_exploration=_flag(batch),
        new_user=encoded.new_user,
        new_video=encoded.new_video,
        slices={name: _texts(batch, name) for name in _sliced_by(state.config)},
        baselines=dict(baselines),
        utilisation=utilisation,
        slate_baselines=dict(slate_baselines or {}),
        raw_predictions=None if predictions is raw else raw,
        gate_entropy=entropy,
        live_units=live,
    )


def predict_slates(
    trainer: Trainer,
    state: FeatureState,
    batch: Batch,
    day: date,
    encoded: Encoded,
    predictions: Predictions,
    calibration: Calibration,
) -> Predictions:
    """Calibrated predictions with features as of each slate's first row [n, K]; the row-time ones where that changes
    nothing."""
    blocks = encoded.slate_blocks or state.slate_blocks(batch, day, encoded)
    return predictions if blocks is None else calibration.apply(trainer.predict(blocks)[0])


def _sliced_by(config: Config) -> list[str]:
    """The context columns by whose values figures are split or the gate judges."""
    judged = [name for name in config.gate.slices if name in config.log.context]
    return list(dict.fromkeys([*config.evaluation.slices, *judged]))


def _flag(batch: Batch) -> NDArray[np.bool_] | None:
    if "is_exploration" not in batch:
        return None
    flag = batch.numbers("is_exploration")
    return None if np.isnan(flag).all() else np.nan_to_num(flag) > 0


def _texts(batch: Batch, name: str) -> Strings:
    column = batch[name]
    if isinstance(column, Strings):
        return column
    return Strings.of(None if value != value else str(value) for value in np.asarray(column).tolist())
