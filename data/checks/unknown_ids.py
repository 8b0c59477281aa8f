"""Check: ids missing from the users' or videos' table. Such rows are kept and counted, unless the configuration says
``ingest.unknown_ids = "reject"``: the model has a learnt default for what it does not know."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.readers.convert import mask

REASON = "unknown id"


def missing(rows: pa.Table, key: str, known: pa.Array) -> NDArray[np.bool_]:
    """Whether each row's ``key`` (user_id, video_id) is not among ``known`` [n]; a null is not missing."""
    ids = rows.column(key)
    return mask(pc.and_(ids.is_valid(), pc.invert(pc.is_in(ids, value_set=known))))
