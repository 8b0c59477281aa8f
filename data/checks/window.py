"""Check: the configured days. Rows before ``ingest.first_day`` or after ``last_day`` are set aside by choice, so they
don't count as bad."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from data.checks.finding import Finding
from data.config import Config
from data.days import day_start, parse_day
from data.readers.convert import mask

REASON = "outside the days"


def check(rows: pa.Table, config: Config) -> list[Finding]:
    found = []
    times = rows.column("timestamp")
    if config.ingest.first_day:
        first = day_start(parse_day(config.ingest.first_day), config.timezone)
        found.append(Finding(REASON, f"timestamp: before {config.ingest.first_day}", mask(pc.less(times, first))))
    if config.ingest.last_day:
        end = day_start(parse_day(config.ingest.last_day) + timedelta(days=1), config.timezone)
        found.append(Finding(REASON, f"timestamp: after {config.ingest.last_day}", mask(pc.greater_equal(times, end))))
    return found
