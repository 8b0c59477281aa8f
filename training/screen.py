"""Look at new days before anything is learnt from them: each is good, or goes into quarantine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import structlog

from data.config import Config
from data.features.tables import Tables
from data.home import Home
from data.log import list_days, read_day
from models.bundle import Bundle
from training.days import read_tables
from training.facts import DayFigures, Figure, auc_error, champion_figures, day_figures
from training.figures import Scored
from training.frozen import Frozen
from training.plan import digest
from training.quarantine import JudgedDay, Quarantine, judge
from training.waiting import open_labels

log = structlog.get_logger()


@dataclass(frozen=True)
class Screened:
    """The good days of the dataset; those that went into quarantine now; and the champion's predictions of the newest good
    day, where they were made."""

    good: tuple[date, ...]
    held: tuple[JudgedDay, ...]
    scored: Scored | None


def screen_days(config: Config, home: Home, model: Frozen | None, now: int) -> Screened:
    """Judge the days after the champion's window that have not been judged as they are now, in order.

    A day whose partition changed (more of its labels closed) is judged again, unless somebody has released it. Days of the
    window count as good: they have been trained on.

    Args:
        model: the champion, None where there is none yet.
        now: the time, ms.
    """
    quarantine, tables = Quarantine(home, config.name), read_tables(home, config)
    there, still_open = list_days(home, config.dataset), open_labels(home, config)
    judged = quarantine.days()
    window = [day for day in there if model is not None and day <= model.bundle.manifest.window.last_day]
    for day in window[-config.retrain.band_days :]:
        if model is not None and day not in judged:
            judged[day] = _trained_on(config, home, model.bundle, day, tables)
            quarantine.put(judged[day], now)
    held, scored, good = [], None, [day for day in window if day not in judged or judged[day].status != "quarantined"]
    for day in there[len(window) :]:
        found, rows = judged.get(day), digest(home, config, day)
        if found is None or (found.digest != rows and found.status != "released"):
            labels = still_open.get(day, frozenset())
            figures = day_figures(read_day(home, config, day), config, tables, labels)
            if model is not None:
                newest = model.score(day, good[len(window) :], labels)
                figures |= champion_figures(newest, config)
            reasons = judge(figures, _good_before(judged, day), config.retrain)
            judged[day] = JudgedDay(day, rows, "quarantined" if reasons else "good", figures, reasons)
            quarantine.put(judged[day], now)
            if reasons:
                held.append(judged[day])
                log.warning("day_quarantined", day=str(day), reasons="; ".join(reasons))
            elif model is not None:
                scored = newest
        if judged[day].status != "quarantined":
            good.append(day)
    return Screened(tuple(good), tuple(held), scored if scored is not None and scored.day == good[-1] else None)


def _good_before(judged: Mapping[date, JudgedDay], day: date) -> list[DayFigures]:
    return [
        judged[earlier].figures for earlier in sorted(judged) if earlier < day and judged[earlier].status != "quarantined"
    ]


def _trained_on(config: Config, home: Home, bundle: Bundle, day: date, tables: Tables) -> JudgedDay:
    """A day of the champion's window, with the order that the champion had on it before it was trained on it."""
    figures = day_figures(read_day(home, config, day), config, tables, frozenset())
    by_day = json.loads(bundle.metrics.read_text(encoding="utf-8")).get("by_day", {})
    for name, objective in by_day.get(str(day), {}).items():
        value = objective["auc" if objective["kind"] == "binary" else "order_accuracy"]
        positives, negatives = objective["positives"], objective["count"] - objective["positives"]
        if value is not None and min(positives, negatives) > 0:
            figures[f"champion:{name}"] = Figure(value, auc_error(value, positives, negatives))
    return JudgedDay(day, digest(home, config, day), "good", figures)
