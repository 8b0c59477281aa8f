"""Sampled requests from the database, as off-policy estimates take them: candidates, propensities, outcomes.

Left out, and counted by reason, is what can't be judged: requests that did not explore (what they showed says nothing of
another order), whose windows are still open, whose candidates or predictions are not whole, and those whose propensities
are not what exploration gives for their candidates.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from data.config import Config
from data.database import reading
from data.errors import LogError
from data.exploration import propensity
from data.feedback.batches import of_time
from data.feedback.outcomes import log_rows
from data.feedback.requests import Request, as_arrays
from data.feedback.rows import requests_by_id
from data.feedback.schema import served
from training.off_policy_weights import Floats, Ints, Slates

CHUNK = 500
"""Requests that are read at a time."""
CLOSE = 1e-6
"""How far a logged propensity may be from the one worked out anew."""
NO_CHOICE = "nothing explored, or nothing to choose from"
OPEN = "outcomes still open"
BROKEN = "candidates or predictions not whole"
UNEXPLAINED = "propensities that exploration doesn't explain"


@dataclass(frozen=True)
class Sampled:
    """What was read. ``sampled`` counts all requests with candidates in that time; ``left_out`` those not in ``slates`` by
    reason; ``cut`` is how many of the rest have more than the S slots that are judged."""

    slates: Slates
    first: int  # ms
    last: int
    sampled: int
    left_out: Mapping[str, int]
    cut: int


@dataclass(frozen=True)
class One:
    """A request, its candidates in order of their ids."""

    request: Request
    predictions: np.ndarray  # [n, K]
    keys: Floats  # [n]
    shown: Ints  # [s]
    propensity: Floats  # [s]
    share: float


def read_sampled(
    engine: sa.Engine, config: Config, since: int, until: int, as_of: int, most: int, slots: int | None = None
) -> Sampled:
    """Sampled requests of ``since`` <= timestamp < ``until`` (ms), outcomes as known just before ``as_of``; at most about
    ``most`` of them, evenly spread. ``slots`` are judged; default: as many as half of the slates have.

    Raises:
        LogError: there is none that can be judged.
    """
    ids = _ids(engine, config, since, until)
    chosen = ids[:: -(-len(ids) // most)] if ids else []
    left: Counter[str] = Counter({"beyond the number asked for": len(ids) - len(chosen)} if len(ids) > len(chosen) else {})
    kept: list[One] = []
    outcomes: list[Floats] = []
    for start in range(0, len(chosen), CHUNK):
        for one, outcome in _read(engine, config, chosen[start : start + CHUNK], as_of, left):
            kept.append(one)
            outcomes.append(outcome)
    if not kept:
        why = ", ".join(f"{count:,} with {reason}" for reason, count in left.items()) or "none was sampled"
        raise LogError(
            f"no request of {config.name!r} can be judged: expected sampled ones ([exploration] sample) that explored "
            f"([exploration] share), got {why}"
        )
    length = slots or max(1, int(np.median([len(one.shown) for one in kept])))
    times = [one.request.timestamp for one in kept]
    slates = _padded(kept, outcomes, length, len(config.objectives))
    cut = sum(len(one.shown) > length for one in kept)
    return Sampled(slates, min(times), max(times), len(ids), dict(left), cut)


def _ids(engine: sa.Engine, config: Config, since: int, until: int) -> list[str]:
    wanted = sa.select(served.c.request_id).where(*of_time(config, since, until), served.c.candidates.is_not(None))
    with reading(engine) as connection:
        return list(connection.execute(wanted.order_by(served.c.timestamp, served.c.request_id)).scalars())


def _read(
    engine: sa.Engine, config: Config, ids: Sequence[str], as_of: int, left: Counter[str]
) -> Iterator[tuple[One, Floats]]:
    """Requests that can be judged with the outcomes [s, K] of their slots."""
    blobs = sa.select(served.c.request_id, served.c.candidates).where(served.c.request_id.in_(ids))
    with reading(engine) as connection:
        requests = requests_by_id(connection, ids)
        candidates = {row.request_id: row.candidates for row in connection.execute(blobs)}
    window = max(config.window(objective.label) for objective in config.objectives)
    found: dict[str, One] = {}
    for request in requests:
        one = OPEN if request.timestamp + window >= as_of else _one(request, candidates.get(request.request_id), config)
        if isinstance(one, One):
            found[request.request_id] = one
        else:
            left[one] += 1
    outcomes = {name: np.zeros((len(one.shown), len(config.objectives))) for name, one in found.items()}
    rows = log_rows(config, *as_arrays(config, [one.request for one in found.values()]), as_of)
    if len(rows):
        labels = np.stack([np.nan_to_num(rows.numbers(o.label).astype(np.float64)) for o in config.objectives], axis=1)
        places = rows.numbers("position").astype(np.int64).tolist()
        for name, place, values in zip(map(str, rows.strings("request_id").tolist()), places, labels, strict=True):
            outcomes[name][place] = values
    yield from ((one, outcomes[name]) for name, one in found.items())


def _one(request: Request, blob: bytes | None, config: Config) -> One | str:
    """The request, or why it can't be judged."""
    try:
        content: dict[str, Any] = orjson.loads(blob or b"")
        ids = list(content["video_ids"])
        order = sorted(range(len(ids)), key=ids.__getitem__)
        keys = np.array(content["scores"], np.float64)[order]
        columns = [content["predictions"][name] for name in config.objective_names]
        predictions = np.array(columns, np.float64).T.reshape(len(ids), len(columns))[order]
    except (ValueError, KeyError, TypeError):
        return BROKEN
    place = {ids[row]: rank for rank, row in enumerate(order)}
    items = sorted(request.items, key=lambda item: item.position)
    chances = np.array([np.nan if item.propensity is None else item.propensity for item in items], np.float64)
    whole = len(place) == len(ids) and all(item.video_id in place for item in items)
    if not (whole and items and np.isfinite(keys).all() and np.isfinite(predictions).all() and np.isfinite(chances).all()):
        return BROKEN
    shown = np.array([place[item.video_id] for item in items], np.int64)
    share = _share(keys, shown, chances)
    if share is None:
        return UNEXPLAINED
    if share == 0 or len(ids) == 1:
        return NO_CHOICE
    return One(request, predictions.astype(np.float32), keys, shown, chances, share)


def _share(keys: Floats, shown: Ints, logged: Floats) -> float | None:
    """e, from the first slot's propensity; None where the other slots' are not what it gives."""
    n, left = len(keys), keys.copy()
    if n == 1:
        return 0.0 if abs(logged[0] - 1) < CLOSE else None
    first = shown[0] == keys.argmax()
    share = float(np.clip((1 - logged[0]) / (1 - 1 / n) if first else logged[0] * n, 0.0, 1.0))
    share = 0.0 if share < CLOSE else share
    for slot, place in enumerate(shown.tolist()):
        if abs(propensity(place == left.argmax(), share, n - slot) - logged[slot]) > CLOSE:
            return None
        left[place] = -np.inf
    return share


def _padded(kept: Sequence[One], outcomes: Sequence[Floats], slots: int, objectives: int) -> Slates:
    count, most = len(kept), max(len(one.keys) for one in kept)
    predictions = np.full((count, most, objectives), np.nan, np.float32)
    keys, shown = np.full((count, most), -np.inf), np.full((count, slots), -1, np.int64)
    chances, values = np.ones((count, slots)), np.zeros((count, slots, objectives))
    for row, (one, outcome) in enumerate(zip(kept, outcomes, strict=True)):
        predictions[row, : len(one.keys)], keys[row, : len(one.keys)] = one.predictions, one.keys
        there = min(slots, len(one.shown))
        shown[row, :there], chances[row, :there] = one.shown[:slots], one.propensity[:slots]
        values[row, :there] = outcome[:slots]
    user = np.unique([one.request.user_id for one in kept], return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Slates(user, predictions, keys, np.array([one.share for one in kept]), shown, chances, values)
