"""A slate as JSON. The schema of the answer is in :mod:`service.schemas`; no such object is built on the way.

orjson writes a numpy float32 with as many digits as it has (a Python float made of it would print 17), and NaN as null.
"""

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.pipeline import Slate


def encode(slate: Slate) -> bytes:
    body: dict[str, Any] = {"request_id": slate.query.request_id, "model_version": slate.version, "degraded": slate.degraded}
    body |= {"slate": _slate(slate)} if slate.query.columns else {"items": _items(slate)}
    if slate.query.scored:
        body["candidates"] = _columns(slate, slate.best_first)
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _slate(slate: Slate) -> dict[str, Any]:
    """The items as one list a field, without an object an item."""
    brought = [*map(slate.candidates.generators.__getitem__, slate.shown.tolist())]
    columns = {**_columns(slate, slate.shown), "generators": brought}
    if slate.query.explain:
        columns["explanation"] = [_explanation(slate, slot) for slot in range(len(slate.shown))]
    return columns


def _columns(slate: Slate, places: NDArray[np.int64]) -> dict[str, Any]:
    predictions = np.ascontiguousarray(slate.scores.predictions.T.take(places, axis=1), np.float32)
    return {
        "video_id": [*map(slate.candidates.video_ids.__getitem__, places.tolist())],
        "score": slate.combined.scores[places],
        "predictions": dict(zip(slate.query.ranking.objectives, predictions, strict=True)),
    }


def _items(slate: Slate) -> list[dict[str, Any]]:
    names = slate.query.ranking.objectives
    predictions = np.ascontiguousarray(slate.scores.predictions[slate.shown], np.float32)
    scores = slate.combined.scores[slate.shown].tolist()
    items = [
        {
            "video_id": slate.candidates.video_ids[place],
            "score": score,
            "position": position,
            "predictions": dict(zip(names, row, strict=True)),
            "generators": slate.candidates.generators[place],
        }
        for position, (place, score, row) in enumerate(zip(slate.shown.tolist(), scores, predictions, strict=True))
    ]
    if slate.query.explain:
        for slot, item in enumerate(items):
            item["explanation"] = _explanation(slate, slot)
    return items


def _explanation(slate: Slate, slot: int) -> dict[str, Any]:
    names, place = slate.query.ranking.objectives, int(slate.shown[slot])
    gates = np.ascontiguousarray(slate.scores.gates[place], np.float32)
    return {
        "contributions": dict(zip(names, slate.combined.contributions[place].tolist(), strict=True)),
        "gates": dict(zip(names, gates, strict=True)),
        "propensity": float(slate.filled.propensity[slot]),
        "is_exploration": bool(slate.filled.explored[slot]),
    }
