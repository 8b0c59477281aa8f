"""The quarantine: days that look unlike the good ones before them are neither judged on nor trained on until released."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
import sqlalchemy as sa

from data.config import RetrainConfig
from data.database import database_url, metadata, open_database, reading, upsert, writing
from data.days import parse_day
from data.errors import LogError
from data.home import Home
from training.facts import DayFigures, Figure

Status = Literal["good", "quarantined", "released"]

LEAST_GOOD_DAYS = 3
"""Good days that have a figure before it is judged: with two there is no telling which of them is odd."""
MAD_TO_SIGMA = 1.4826
"""The median absolute deviation of normal values times this is their standard deviation."""
LEAST = {"rows": 0.5, "other": 0.5}
"""Half of the median at least, for what moves with weekends and holidays: how many rows, and what is in them."""
LEAST_SHARE = 0.02
"""Of the shares of nulls and of other values, the least half width."""

judged_days = sa.Table(
    "judged_days",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),  # of the partition that was judged
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("figures", sa.Text, nullable=False),  # JSON: {name: [value, standard error]}
    sa.Column("reasons", sa.Text, nullable=False),  # JSON: why it was quarantined
    sa.Column("judged_at", sa.BigInteger, nullable=False),
)
"""What the nightly job made of each day: one row a day."""


@dataclass(frozen=True)
class JudgedDay:
    """A day with its figures and what came of it. ``reasons`` stay when it is released."""

    day: date
    digest: str
    status: Status
    figures: DayFigures
    reasons: tuple[str, ...] = ()


def judge(figures: DayFigures, good: Sequence[DayFigures], settings: RetrainConfig) -> tuple[str, ...]:
    """Why a day leaves the band of the last good days; nothing where it doesn't.

    The band of a figure is its median over the last ``band_days`` good days that have it, give or take the largest of
    ``band_width`` robust standard deviations (of the good days, and of the sampling error of day and median together) and
    ``band_least`` of the median (of the champion's order: of what it has above chance). A figure that fewer than three
    good days have is not judged. Of the champion's order only the lower end counts: no day is broken by being easy.
    """
    reasons = []
    for name, figure in figures.items():
        before = [day[name] for day in good if name in day][-settings.band_days :]
        if len(before) < LEAST_GOOD_DAYS:
            continue
        low, high = _band(name, figure, before, settings)
        if not low <= figure.value <= high:
            expected = f"{_say(low)} to {_say(high)}" if np.isfinite(high) else f"at least {_say(low)}"
            reasons.append(f"{name} is {_say(figure.value)}, expected {expected} after the last {len(before)} good days")
    return tuple(reasons)


def _band(name: str, figure: Figure, before: Sequence[Figure], settings: RetrainConfig) -> tuple[float, float]:
    kind = name.partition(":")[0]
    values = np.array([day.value for day in before])
    centre = float(np.median(values))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(values - centre)))
    sampling = float(np.hypot(figure.error, np.median([day.error for day in before])))
    size = abs(centre - 0.5) if kind == "champion" else abs(centre)
    least = max(settings.band_least, LEAST.get(kind, 0.0)) * size
    if kind in ("null", "other"):
        least = max(least, LEAST_SHARE)
    half = max(settings.band_width * max(spread, sampling), least)
    return centre - half, np.inf if kind == "champion" else centre + half


def _say(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


class Quarantine:
    """The judged days of a name, in the home's database.

    Raises (every method):
        DatabaseError: the database cannot be read or written.
    """

    def __init__(self, home: Home, name: str) -> None:
        self._name = name
        self._engine = open_database(database_url(home))

    def days(self) -> dict[date, JudgedDay]:
        """Every judged day, in order."""
        query = sa.select(judged_days).where(judged_days.c.name == self._name).order_by(judged_days.c.day)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return {parse_day(row.day): _judged(row) for row in rows}

    def put(self, judged: JudgedDay, now: int) -> None:
        """Enter a day, in place of what was said of it before."""
        values = {
            "digest": judged.digest,
            "status": judged.status,
            "figures": json.dumps({name: list(figure) for name, figure in judged.figures.items()}),
            "reasons": json.dumps(judged.reasons),
            "judged_at": now,
        }
        insert = upsert(self._engine, judged_days).values(name=self._name, day=str(judged.day), **values)
        keys = [judged_days.c.name, judged_days.c.day]
        with writing(self._engine) as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=values))

    def release(self, day: date, now: int) -> JudgedDay:
        """Have a day taken as it is, whatever its figures; it is not judged again unless its rows change.

        Raises:
            LogError: it is not in quarantine.
        """
        found = self.days().get(day)
        if found is None or found.status != "quarantined":
            held = ", ".join(str(d.day) for d in self.days().values() if d.status == "quarantined") or "none"
            raise LogError(f"{day} of {self._name!r} is not in quarantine; there: {held}")
        released = replace(found, status="released")
        self.put(released, now)
        return released


def _judged(row: sa.Row[tuple[object, ...]]) -> JudgedDay:
    figures = {name: Figure(*pair) for name, pair in json.loads(row.figures).items()}
    return JudgedDay(parse_day(row.day), row.digest, row.status, figures, tuple(json.loads(row.reasons)))
