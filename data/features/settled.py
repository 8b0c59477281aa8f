"""What is settled of users: features that their past alone decides, encoded once for all users of a bundle.

Once all outcomes that the state knows of a user count, these features change only with what the user does next. So a request
of a user who has done nothing since the boundary takes one row, and the user's entries are not looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, Strings, arrays_of
from data.config import Config, Feature, HistoryFeature, RateFeature, RecentFeature
from data.features.asof import Ints
from data.features.encoded_rows import side_by_side
from data.features.history import history_batch
from data.features.past import Past, past_batch, seen_at
from data.features.spec import encode_feature
from data.features.state import FeatureState
from data.features.storage import ArrayFile, let_go, load_array
from data.features.stretches import latest
from data.features.view import View
from data.vocabulary import Numbering

AT_ONCE = 16_384
"""Users that are encoded together."""
NOBODY = "\x00"
"""A user of whom nothing is known; no id can be this text."""
NEVER = np.iinfo(np.int64).min
FILES = ("times", "ints", "floats")


class Settled(NamedTuple):
    """Of one user: the row of what is settled, when the last outcome counts or the last impression was seen, whichever is
    later, and when the last impression was seen (ms; :data:`NEVER` without any)."""

    row: int
    until: int
    seen: int


@dataclass(frozen=True)
class SettledUsers:
    """Of each user, by number, and in the last row of one who is unknown [U + 1].

    Attributes:
        times: ``until`` and ``seen`` of :class:`Settled` [U + 1, 2]. What is here holds of requests whose day begins after
            ``until``.
        ints: embedding rows, the features of :func:`settled_features` side by side; ``floats`` numbers likewise.
    """

    times: Ints
    ints: NDArray[np.integer]
    floats: NDArray[np.float32]

    @classmethod
    def write(cls, state: FeatureState, folder: Path) -> "SettledUsers":
        """Encode a state's users into files, some at a time."""
        folder.mkdir(parents=True)
        files = [ArrayFile(folder / f"{name}.npy") for name in FILES]
        texts = [*state.knowledge.vocabularies["user_id"].texts, NOBODY]
        for first in range(0, len(texts), AT_ONCE):
            for file, array in zip(files, _encode(state, texts, first), strict=True):
                file.append(array)
        return cls(*(file.close() for file in files))

    @classmethod
    def load(cls, folder: Path) -> "SettledUsers":
        """What :meth:`write` wrote, memory-mapped."""
        return cls(*(load_array(folder / f"{name}.npy") for name in FILES))

    def __len__(self) -> int:
        return len(self.times)

    def of(self, number: int | None) -> Settled:
        """Of a user by number, None of one who is unknown."""
        row = len(self) - 1 if number is None else number
        return Settled(row, *self.times[row].tolist())


def settled_features(config: Config) -> list[Feature]:
    """The features that a user's past alone decides, whatever the time."""
    return [
        feature
        for feature in config.features
        if isinstance(feature, RecentFeature | HistoryFeature)
        or (isinstance(feature, RateFeature) and feature.keys == ("user_id",))
    ]


def _encode(state: FeatureState, texts: Sequence[str], first: int) -> tuple[NDArray[Any], ...]:
    """Times, ints and floats [n] of some users, at a time when all of their outcomes count."""
    users = np.arange(first, min(first + AT_ONCE, len(texts)), dtype=np.int32)
    start, end = state.recent_user.searchsorted([first, first + len(users)]).tolist()
    rows = state.recent.between(start, end) if start < end else past_batch(history_batch(state.config, "", []), state.config)
    times, rows_user = np.full((len(users), 2), NEVER), state.recent_user[start:end] - first
    for column, when in enumerate((latest(rows, state.config), seen_at(rows))):
        np.maximum.at(times[:, column], rows_user, when)
    time = np.full(len(users), max(int(times.max()), state.boundary) + 1)
    numberings = {name: Numbering(vocabulary) for name, vocabulary in state.knowledge.vocabularies.items()}
    queries = View(Batch({"user_id": Strings(users, texts)}), time, state.tables, numberings)
    view = View(rows, rows.numbers("timestamp").astype(np.int64), state.tables, numberings)
    past = Past(view, state.config, int(time[0]))
    features = settled_features(state.config)
    ints, floats = side_by_side(len(users), (encode_feature(state.knowledge, f, queries, time, past) for f in features))
    let_go(state.recent_user, *arrays_of(rows))
    return times, ints.astype(np.min_scalar_type(-max(state.table_sizes().values(), default=1))), floats
