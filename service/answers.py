"""A slate as JSON. The schema of the answer is :class:`service.schemas.Answer`; no such object is built on the way.

orjson writes a numpy float32 with as many digits as it has (a Python float made of it would print 17), and NaN as null.
"""

from typing import Any

import numpy as np
import orjson

from service.pipeline import Slate


def encode(slate: Slate) -> bytes:
    body = {
        "request_id": slate.query.request_id,
        "model_version": slate.version,
        "degraded": slate.degraded,
        "items": _items(slate),
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


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
