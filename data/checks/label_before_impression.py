"""Check: an outcome known before its impression. It belongs to another one, or the clocks disagree."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from data.checks.finding import Finding
from data.readers.convert import mask

REASON = "label before impression"


def check(rows: pa.Table, labels: Iterable[str]) -> list[Finding]:
    """No ``<label>_visible_at`` is earlier than the row's timestamp."""
    found = []
    for name in (f"{label}_visible_at" for label in labels):
        if name in rows.column_names:
            early = mask(pc.less(rows.column(name), rows.column("timestamp")))
            found.append(Finding(REASON, f"{name}: earlier than the impression", early))
    return found
