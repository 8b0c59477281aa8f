"""What features need to know of the past, carried from day to day, into the bundle and into the service."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, StringLists, Strings
from data.config import Config, NumberFeature, Objective, RateFeature, Side
from data.days import day_of, day_start
from data.errors import LogError
from data.features.asof import Ints
from data.features.fitted import Scale, prior
from data.features.layout import SIDES, Block, Layout, build_layout
from data.features.merging import fits, folder_after, merge_files, merged
from data.features.past import SEEN, Past, after_window, join, past_batch, visible_at
from data.features.rates import Entries, Totals, entries_of, take_in, together
from data.features.recent import kept
from data.features.recent_files import USERS, RecentFiles, rows_of_users, share_texts, stretches
from data.features.slates import feature_times, slate_times, slates
from data.features.sorting import distinct, stable_order
from data.features.spec import Knowledge, encode_sides, longest_window, table_sizes, vocabulary_sources
from data.features.static import FIRST, bucket_rows, crossed_column, number_values
from data.features.storage import load_array, load_batch, save_arrays, save_batch, write_blocks
from data.features.tables import EntityTable, Tables
from data.features.targets import TargetStats
from data.features.view import View
from data.objectives import positive_label, targets
from data.vocabulary import Numbering, Vocabulary

RECENT, PAIRS = "recent", "seen_pairs"

PART_ROWS = 262_144
"""Rows encoded at once, where they are written to files: what a part takes is small beside a large day's past."""


@dataclass(frozen=True)
class Encoded:
    """Rows ready for the network. ``targets`` [n, K] are in natural units, NaN where masked; ``user`` and ``video`` [n]
    are numbers of their vocabularies; ``new_user`` and ``new_video`` [n] say who is served through the learnt default.
    ``slate_blocks``, where asked for and not the same, are the rows with features as of their slate's first row."""

    blocks: Mapping[Side, Block]
    targets: NDArray[np.float32]
    user: Ints
    video: Ints
    slate: Ints
    time: Ints
    new_user: NDArray[np.bool_]
    new_video: NDArray[np.bool_]
    slate_blocks: Mapping[Side, Block] | None = None

    def __len__(self) -> int:
        return len(self.targets)


class FeatureState:
    """Vocabularies, fitted scales, totals and the users' recent past at ``boundary``, the start of a day.

    :meth:`fit`, then for each day :meth:`encode` (any number of times) and :meth:`advance` over it. Nothing that
    ``encode`` returns for a row depends on anything at or after the row's feature time.
    """

    def __init__(self, knowledge: Knowledge, tables: Tables, target_stats: Sequence[TargetStats]) -> None:
        self.knowledge = knowledge
        self.tables = dict(tables)
        self.target_stats = tuple(target_stats)
        self.recent: Batch = Batch({})
        self.recent_user: Ints = np.zeros(0, np.int64)
        self.seen_pairs: Ints = np.zeros(0, np.int64)
        self.shelf: Path | None = None
        """Where :meth:`advance` keeps what is too large for memory; without it all stays there. A folder of this state
        alone, whose files are linked into what is saved."""
        self._place: dict[str, Path] = {}  # of what lies on the shelf

    @classmethod
    def fit(cls, config: Config, tables: Tables, days: Iterable[tuple[date, Batch]]) -> "FeatureState":
        """Fit vocabularies, scales and priors on whole days; the boundary is the start of the first.

        Priors are means of the outcomes that counted by the end of the last of them (of a log that we served ourselves,
        whose windows may all be open then: where none did, of all its outcomes).
        """
        days = list(days)
        if not days:
            raise LogError("cannot fit features: there are no days")
        vocabularies = {name: Vocabulary() for name in vocabulary_sources(config)}
        totals = {f.name: Totals.empty(len(f.labels)) for f in config.features if isinstance(f, RateFeature)}
        boundary = day_start(days[0][0], config.timezone)
        state = cls(Knowledge(config, build_layout(config), vocabularies, {}, {}, totals, boundary), tables, ())
        until = day_start(days[-1][0] + timedelta(days=1), config.timezone)
        views = [state._view(early, feature_times(early)) for early in (_before(batch, until) for _, batch in days)]
        for view in views:
            state._grow(view)
        for vocabulary in vocabularies.values():
            vocabulary.admit()
        numbers = [feature for feature in config.features if isinstance(feature, NumberFeature)]
        known = {f.name: np.concatenate([number_values(f, v, config.durations) for v in views]) for f in numbers}
        scales = {f.name: Scale.fit(f, known[f.name]) for f in numbers}
        priors = {label: _prior([batch for _, batch in days], label, config, until) for label in config.labels}
        state.knowledge = replace(state.knowledge, scales=scales, priors=priors)
        whole = [state._view(batch, feature_times(batch)) for _, batch in days]
        fitted = np.concatenate([targets(view.batch, config, view.column) for view in whole])
        state.target_stats = tuple(
            TargetStats.fit(o, fitted[:, k], *state._groups(o, whole)) for k, o in enumerate(config.objectives)
        )
        return state

    def _groups(self, objective: Objective, views: Sequence[View]) -> tuple[NDArray[np.int32], int] | tuple[()]:
        """Where the objective's head asks for it: each row's duration group [n], as the network sees it, and how many
        there are."""
        if objective.head != "duration_quantile":
            return ()
        feature = self.config.duration_of(objective)
        scale = self.knowledge.scales[feature.name]
        values = np.concatenate([number_values(feature, view, self.config.durations) for view in views])
        return bucket_rows(scale, values), FIRST + len(scale.edges) + 1

    @property
    def config(self) -> Config:
        return self.knowledge.config

    @property
    def layout(self) -> Layout:
        return self.knowledge.layout

    @property
    def boundary(self) -> int:
        """All that the totals hold counted before this time, ms."""
        return self.knowledge.boundary

    def table_sizes(self) -> dict[str, int]:
        """Embedding rows admitted now, per table (UNSEEN and NULL included)."""
        return table_sizes(self.knowledge)

    def encode(self, batch: Batch, day: date, time: Ints | None = None, folder: Path | None = None) -> Encoded:
        """Encode the rows of a day, in the log's order.

        Args:
            time: feature times [n], ms; default :func:`data.features.slates.feature_times`.
            folder: write the features there, part by part, and map them into memory: of a large day they, and what it
                takes to compute them all at once, are most of the memory that training takes.

        Raises:
            LogError: a feature time lies before the boundary, whose past is no longer known one by one.
        """
        time = feature_times(batch) if time is None else time
        if len(time) and int(time.min()) < self.boundary:
            raise LogError(f"{day} holds rows from before it, or the day was already taken in")
        numberings = self._numberings()
        queries = View(batch, time, self.tables, numberings)
        cutoff = self.day_starts(time)
        earliest = int(cutoff.min(initial=self.boundary))
        past = self._past(self._recent_of(queries.user), past_batch(batch, self.config), numberings, earliest)
        video = queries.number("video_id")
        vocabularies = self.knowledge.vocabularies

        def features(start: int, end: int) -> dict[Side, Block]:
            return encode_sides(self.knowledge, queries.between(start, end), cutoff[start:end], past, SIDES)

        rows = len(queries)
        parts = (features(start, start + PART_ROWS) for start in range(0, max(rows, 1), PART_ROWS))
        return Encoded(
            features(0, rows) if folder is None else write_blocks(parts, rows, folder),
            targets(batch, self.config, queries.column),
            queries.user,
            video,
            slates(batch, self.config, day),
            time,
            queries.user >= vocabularies["user_id"].admitted,
            video >= vocabularies["video_id"].admitted,
        )

    def slate_blocks(
        self, batch: Batch, day: date, encoded: Encoded, folder: Path | None = None
    ) -> Mapping[Side, Block] | None:
        """A day's rows with features as of their slate's first row, as a request has them; None where that changes nothing.

        Args:
            encoded: the same rows, at their own feature times.
            folder: as in :meth:`encode`.
        """
        times = slate_times(batch, encoded.slate)
        return None if np.array_equal(times, encoded.time) else self.encode(batch, day, times, folder).blocks

    def advance(self, batch: Batch, until: int, admit: bool = True) -> None:
        """Take a day in: ``until`` (the start of the next day, ms) becomes the boundary; new ids are admitted.

        A day's last request may have rows after ``until``: the ids that come with these are admitted a day later. Without
        ``admit`` new ids are counted but keep the row of the unseen, as a network that isn't trained further needs.
        """
        early = _before(batch, until)
        self._grow(self._view(early, feature_times(early)))
        for vocabulary in self.knowledge.vocabularies.values() if admit else ():
            vocabulary.admit()
        day = self._view(batch, feature_times(batch))
        if early is not batch:
            self._grow(day)
        rates = [feature for feature in self.config.features if isinstance(feature, RateFeature)]
        entries: dict[str, list[Entries]] = {feature.name: [] for feature in rates}
        for past in self._advance_recent(past_batch(batch, self.config), day.user, until):
            for feature in rates:
                since = self.knowledge.totals[feature.name].boundary
                entries[feature.name].append(entries_of(feature, since, past, max(until, since)))
        totals = {name: self._add(name, together(found), until) for name, found in entries.items()}
        self._add_pairs(distinct((day.user << 32) | day.number("video_id")))
        self.knowledge = replace(self.knowledge, totals=totals, boundary=until)

    def _add(self, name: str, entries: Entries, until: int) -> Totals:
        """Totals with these entries taken in; those that are further on keep their boundary."""
        before = self.knowledge.totals[name]
        after = before.add(entries, max(until, before.boundary), self.shelf and self.shelf / "totals" / name)
        if before.place is not None and after.place != before.place:
            shutil.rmtree(before.place)
        return after

    def _add_pairs(self, pairs: Ints) -> None:
        before = self._place.pop(PAIRS, None)
        if self.shelf is None or fits(len(self.seen_pairs) + len(pairs)):
            (self.seen_pairs,) = merged([self.seen_pairs], [pairs])
            return
        self._place[PAIRS] = folder_after(before, self.shelf / PAIRS)
        (self.seen_pairs,) = merge_files([self.seen_pairs], [pairs], [PAIRS], self._place[PAIRS])
        if before is not None:
            shutil.rmtree(before)

    def _advance_recent(self, today: Batch, user: Ints, until: int) -> Iterator[Past]:
        """The past, all of it or by some users at a time; once it has been looked at, it has become the recent past."""
        numberings, before = self._numberings(), self._place.pop(RECENT, None)
        if self.shelf is None or fits(len(self.recent) + len(today)):
            past = self._past(self.recent, today, numberings, self.boundary)
            yield past
            self.recent, self.recent_user = self._kept(past, until)
            return
        self._place[RECENT] = folder_after(before, self.shelf / RECENT)
        files = RecentFiles(self._place[RECENT], self.knowledge.vocabularies, [self.recent, today])
        since = self.boundary - longest_window(self.config)
        for stretch in stretches(self.recent, self.recent_user, user, self.config, since):
            past = self._past(stretch.awake, today.take(stretch.today), numberings, self.boundary)
            yield past
            files.append(stretch.asleep, stretch.asleep_user, *self._kept(past, until))
        self.recent, self.recent_user = files.close()
        if before is not None:
            shutil.rmtree(before)

    def _kept(self, past: Past, until: int) -> tuple[Batch, Ints]:
        """Of the past what must stay known one by one, in the users' order."""
        keep = np.flatnonzero(kept(self.config, past, until, positive_label(self.config)))
        keep = keep[stable_order(past.view.user[keep])]
        return past_batch(past.view.batch.take(keep), self.config), past.view.user[keep]

    def roll(self, later: Batch, as_of: int) -> None:
        """Move the counts of videos, authors, tags and contexts on to ``as_of`` (ms), with the rows since the boundary as
        they are known by then: what counts before it is settled, though their days are not final.

        What is known of users stays as of the boundary, which stays too: a live profile adds to it, row by row.
        """
        view = self._view(later, feature_times(later))
        self._grow(view)
        past = self._past(self.recent, past_batch(later, self.config), self._numberings(), self.boundary)
        totals = dict(self.knowledge.totals)
        for feature in self.config.features:
            if isinstance(feature, RateFeature) and "user_id" not in feature.keys:
                totals[feature.name] = take_in(feature, totals[feature.name], past, as_of)
        self.knowledge = replace(self.knowledge, totals=totals)

    def day_starts(self, time: Ints) -> Ints:
        """Start of each time's day [n], ms."""
        zone = self.config.timezone
        quarters, inverse = np.unique(time // 900_000, return_inverse=True)
        starts = [day_start(day_of(int(quarter) * 900_000, zone), zone) for quarter in quarters]
        return np.array(starts, np.int64)[inverse]

    def _numberings(self) -> dict[str, Numbering]:
        return {name: Numbering(vocabulary) for name, vocabulary in self.knowledge.vocabularies.items()}

    def _view(self, batch: Batch, time: Ints) -> View:
        return View(batch, time, self.tables, self._numberings())

    def _recent_of(self, user: Ints) -> Batch:
        return rows_of_users(self.recent, self.recent_user, distinct(user))

    def _past(self, recent: Batch, today: Batch, numberings: dict[str, Numbering], earliest: int) -> Past:
        batch = join(recent, today)
        view = View(batch, batch.numbers("timestamp").astype(np.int64), self.tables, numberings)
        return Past(view, self.config, min(earliest, self.boundary) - longest_window(self.config))

    def _grow(self, view: View) -> None:
        crossed = {f.name: f for f in self.config.features if f.kind == "crossed"}
        for name, columns in vocabulary_sources(self.config).items():
            found = [view.column(column) for column in columns] or [crossed_column(crossed[name], view)]
            for column in found:
                texts = column.flat if isinstance(column, StringLists) else column
                assert isinstance(texts, Strings)
                self.knowledge.vocabularies[name].add(texts.in_order())

    def save(self, folder: Path) -> None:
        """Write everything but the configuration, as .npy and .json files."""
        for part in ("vocabularies", "totals", "recent", "tables"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        know = self.knowledge
        for name, vocabulary in know.vocabularies.items():
            vocabulary.save(folder / "vocabularies" / f"{name}.json")
        for name, totals in know.totals.items():
            totals.save(folder / "totals" / name)
        for name, table in self.tables.items():
            table.save(folder / "tables" / name)
        save_batch(self.recent, folder / "recent", self._place.get(RECENT))
        save_arrays({USERS: self.recent_user}, folder, self._place.get(RECENT))
        save_arrays({PAIRS: self.seen_pairs}, folder, self._place.get(PAIRS))
        fitted = {
            "boundary": know.boundary,
            "scales": {name: scale.model_dump() for name, scale in know.scales.items()},
            "priors": dict(know.priors),
            "target_stats": [stats.facts() for stats in self.target_stats],
        }
        (folder / "fitted.json").write_text(json.dumps(fitted, indent=1))

    @classmethod
    def load(cls, folder: Path, config: Config) -> "FeatureState":
        """What :meth:`save` wrote; arrays are memory-mapped."""
        fitted: dict[str, Any] = json.loads((folder / "fitted.json").read_text())
        knowledge = Knowledge(
            config,
            build_layout(config),
            {name: Vocabulary.load(folder / "vocabularies" / f"{name}.json") for name in vocabulary_sources(config)},
            {name: Scale.model_validate(scale) for name, scale in fitted["scales"].items()},
            fitted["priors"],
            {f.name: Totals.load(folder / "totals" / f.name) for f in config.features if isinstance(f, RateFeature)},
            fitted["boundary"],
        )
        tables = {path.name: EntityTable.load(path) for path in sorted((folder / "tables").iterdir())}
        state = cls(knowledge, tables, [TargetStats.of(stats) for stats in fitted["target_stats"]])
        recent = load_batch(folder / "recent")
        old = len(recent.columns) > 0 and SEEN not in recent  # of a bundle made before there was such a column
        state.recent = past_batch(recent, config) if old else share_texts(recent, knowledge.vocabularies)
        state.recent_user, state.seen_pairs = (load_array(folder / f"{name}.npy") for name in (USERS, PAIRS))
        return state


def _before(batch: Batch, until: int) -> Batch:
    """The rows shown before ``until`` (ms)."""
    early = batch.numbers("timestamp") < until
    return batch if early.all() else batch.take(early)


def _prior(batches: Sequence[Batch], label: str, config: Config, until: int) -> float:
    """The mean of the values that count before ``until``; without any, of all that we served ourselves."""
    values = [_known_before(batch, label, config, until) for batch in batches]
    if not sum(map(len, values)):
        values = [batch.numbers(label)[~np.isnan(batch.numbers(SEEN))] for batch in batches if SEEN in batch]
    return prior(values)


def _known_before(batch: Batch, label: str, config: Config, until: int) -> NDArray[np.float64]:
    """The label's values [e] that count before ``until``."""
    delay = round(config.labels[label].feedback_delay * 1000)
    counts = after_window(batch, visible_at(batch, label) + delay, config.window(label) + delay)
    return np.asarray(batch.numbers(label)[counts < until], np.float64)
