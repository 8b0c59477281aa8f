"""What features need to know of the past, carried from day to day, into the bundle and into the service."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Batch, StringLists, Strings, arrays_of
from data.config import Config, HistoryFeature, NumberFeature, Objective, RateFeature, Side
from data.days import day_of, day_start
from data.errors import LogError
from data.features.asof import Ints
from data.features.fitted import Scale, prior
from data.features.groups import Pasts, groups_of
from data.features.joined import by_user, numbered
from data.features.layout import Block, Layout, build_layout
from data.features.merging import fits, folder_after, merge_files, merged
from data.features.parts import encode_into, encode_whole
from data.features.past import SEEN, Past, after_window, past_batch, visible_at
from data.features.rates import Pending, Totals, entries_of, take_in
from data.features.recent import kept
from data.features.recent_files import USERS, RecentFiles, share_texts
from data.features.slates import feature_times, slate_times, slates
from data.features.sorting import distinct, ranks, stable_order
from data.features.spec import Knowledge, longest_window, table_sizes, vocabulary_sources
from data.features.static import FIRST, bucket_rows, crossed_column, number_values
from data.features.storage import let_go, load_array, load_batch, save_arrays, save_batch
from data.features.stretches import RecentRows, Stretch, asleep, side_by_side, stretches
from data.features.tables import EntityTable, Tables
from data.features.targets import TargetStats
from data.features.threads import in_turns
from data.features.view import View
from data.objectives import positive_label, targets
from data.vocabulary import Numbering, Vocabulary

RECENT, PAIRS = "recent", "seen_pairs"


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
            folder: write the features there and map them into memory: of a large day they would be most of the memory
                that training takes.

        Raises:
            LogError: a feature time lies before the boundary, whose past is no longer known one by one.
        """
        time = feature_times(batch) if time is None else time
        if len(time) and int(time.min()) < self.boundary:
            raise LogError(f"{day} holds rows from before it, or the day was already taken in")
        numberings = self._numberings()
        queries = View(batch, time, self.tables, numberings)
        cutoff, video = self.day_starts(time), queries.number("video_id")
        recent, today = numbered([self.recent, past_batch(batch, self.config)], numberings)
        self._look_up(batch, today)
        past_of = partial(self._past_of, numberings=numberings, earliest=int(cutoff.min(initial=self.boundary)))
        since = min((totals.boundary for totals in self.knowledge.totals.values()), default=self.boundary)
        span = since, int(cutoff.max(initial=since))
        pasts = Pasts(groups_of(queries.user, self.recent_user), recent, today, span, past_of)
        vocabularies = self.knowledge.vocabularies

        features = self.knowledge, queries, cutoff, pasts
        return Encoded(
            encode_whole(*features) if folder is None else encode_into(folder, *features),
            targets(batch, self.config, queries.column),
            queries.user,
            video,
            slates(batch, self.config, day),
            time,
            queries.user >= vocabularies["user_id"].admitted,
            video >= vocabularies["video_id"].admitted,
        )

    def _look_up(self, batch: Batch, past: Batch) -> None:
        """Have vocabularies and tables look up all texts of a day, as rows and as part of the past, that encoding asks for:
        no group's are looked up alone."""
        know = self.knowledge
        histories = [feature for feature in self.config.features if isinstance(feature, HistoryFeature)]
        of_past = {feature.of for feature in histories} | {key for feature in self._rates for key in feature.keys}
        asked = [(know.vocabularies[n], batch, name) for n, of in vocabulary_sources(self.config).items() for name in of]
        asked += [(know.vocabularies[feature.table or feature.of], past, feature.of) for feature in histories]
        for table in self.tables.values():
            asked.append((table.ids, batch, table.key))
            if not of_past.isdisjoint(table.batch.columns):
                asked.append((table.ids, past, table.key))
        for vocabulary, rows, name in asked:
            if name in rows:
                column = rows[name]
                texts = column.flat if isinstance(column, StringLists) else column
                assert isinstance(texts, Strings)
                vocabulary.known(texts.values)

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
        if early is not batch:
            self._grow(self._view(batch, feature_times(batch)))
        day = self._view(batch, feature_times(batch))  # numbers of before would give new texts the numbers of others
        pairs, entries = self._advance_recent(batch, day, until)
        names = [feature.name for feature in self._rates]
        tasks: list[Callable[[], Any]] = [partial(self._add_pairs, pairs)]
        tasks += [partial(self._add, name, found, until) for name, found in zip(names, entries, strict=True)]
        self.seen_pairs, *totals = in_turns(tasks)
        self.knowledge = replace(self.knowledge, totals=dict(zip(names, totals, strict=True)), boundary=until)
        for vocabulary in self.knowledge.vocabularies.values():
            vocabulary.forget()
        for table in self.tables.values():
            table.forget()

    @property
    def _rates(self) -> list[RateFeature]:
        return [feature for feature in self.config.features if isinstance(feature, RateFeature)]

    def _add(self, name: str, entries: Pending, until: int) -> Totals:
        """Totals with these entries taken in; those that are further on keep their boundary."""
        before = self.knowledge.totals[name]
        after = before.add(entries.take(), max(until, before.boundary), self.shelf and self.shelf / "totals" / name)
        if before.place is not None and after.place != before.place:
            shutil.rmtree(before.place)
        return after

    def _add_pairs(self, pairs: Ints) -> Ints:
        """The pairs of users and videos that have met, with these."""
        before = self._place.pop(PAIRS, None)
        if self.shelf is None or fits(len(self.seen_pairs) + len(pairs)):
            return merged([self.seen_pairs], [pairs])[0]
        self._place[PAIRS] = folder_after(before, self.shelf / PAIRS)
        (after,) = merge_files([self.seen_pairs], [pairs], [PAIRS], self._place[PAIRS])
        if before is not None:
            shutil.rmtree(before)
        return after

    def _advance_recent(self, batch: Batch, day: View, until: int) -> tuple[Ints, list[Pending]]:
        """Make the day's rows a part of the recent past. Returns the pairs of user and video that met, and of each rate the
        entries that began to count."""
        before = self._place.pop(RECENT, None)
        recent, today = numbered([self.recent, past_batch(batch, self.config)], day.numberings)
        rows: RecentRows | RecentFiles = RecentRows([recent, today])
        if self.shelf is not None and not fits(len(self.recent) + len(batch)):
            self._place[RECENT] = folder_after(before, self.shelf / RECENT)
            rows = RecentFiles(self._place[RECENT], self.knowledge.vocabularies, [recent, today])
        settle = partial(self._settle, recent, today, day, until)
        pairs, pending = list[Ints](), [Pending() for _ in self._rates]
        for after, user, met, *new in in_turns([partial(settle, part) for part in stretches(self.recent_user, day.user)]):
            rows.append(after, user)
            pairs.append(met)
            for entries, more in zip(pending, new, strict=True):
                entries.append(more)
        recent, self.recent_user = rows.close()
        self.recent = past_batch(recent, self.config)
        if before is not None:
            shutil.rmtree(before)
        return np.concatenate(pairs), pending

    def _settle(self, recent: Batch, today: Batch, day: View, until: int, part: Stretch) -> tuple[Any, ...]:
        """Of some users the rows that must stay known one by one, their users, the pairs that met, and of each rate the
        entries that began to count."""
        user, users = self.recent_user[part.recent], day.user[part.today]
        recent = recent.between(part.recent.start, part.recent.stop)
        sleeps = asleep(recent, user, users, self.config, self.boundary - longest_window(self.config))
        rest, its_user, awake = recent.take(sleeps), user[sleeps], recent.take(~sleeps) if sleeps.any() else recent
        past = self._past_of(by_user(awake, today.take(part.today)), day.numberings, self.boundary)
        let_go(user, *arrays_of(recent))
        keep = np.flatnonzero(kept(self.config, past, until, positive_label(self.config)))
        rows = past_batch(past.view.batch.take(keep), self.config)
        pairs = distinct((users << 32) | day.number("video_id")[part.today])
        boundaries = {feature: self.knowledge.totals[feature.name].boundary for feature in self._rates}
        entries = [entries_of(feature, since, past, max(until, since)) for feature, since in boundaries.items()]
        return *side_by_side(rest, its_user, rows, past.view.user[keep]), pairs, *entries

    def roll(self, later: Batch, as_of: int) -> None:
        """Move the counts of videos, authors, tags and contexts on to ``as_of`` (ms), with the rows since the boundary as
        they are known by then: what counts before it is settled, though their days are not final.

        What is known of users stays as of the boundary, which stays too: a live profile adds to it, row by row.
        """
        view = self._view(later, feature_times(later))
        self._grow(view)
        view = self._view(later, feature_times(later))
        recent, today = numbered([self.recent, past_batch(later, self.config)], view.numberings)
        past = self._past_of(by_user(recent, today.take(stable_order(view.user))), view.numberings, self.boundary)
        totals = dict(self.knowledge.totals)
        for feature in self.config.features:
            if isinstance(feature, RateFeature) and "user_id" not in feature.keys:
                totals[feature.name] = take_in(feature, totals[feature.name], past, as_of)
        self.knowledge = replace(self.knowledge, totals=totals)

    def day_starts(self, time: Ints) -> Ints:
        """Start of each time's day [n], ms."""
        zone = self.config.timezone
        quarters, inverse = ranks(time // 900_000)
        starts = [day_start(day_of(int(quarter) * 900_000, zone), zone) for quarter in quarters]
        return np.array(starts, np.int64)[inverse]

    def _numberings(self) -> dict[str, Numbering]:
        return {name: Numbering(vocabulary) for name, vocabulary in self.knowledge.vocabularies.items()}

    def _view(self, batch: Batch, time: Ints) -> View:
        return View(batch, time, self.tables, self._numberings())

    def _past_of(self, batch: Batch, numberings: dict[str, Numbering], earliest: int) -> Past:
        """Entries sorted by user, of which nothing from before ``earliest`` (ms), or the boundary, is asked for, but by
        activity."""
        view = View(batch, batch.numbers("timestamp").astype(np.int64), self.tables, numberings)
        return Past(view, self.config, min(earliest, self.boundary) - longest_window(self.config))

    def _grow(self, view: View) -> None:
        crossed = {f.name: f for f in self.config.features if f.kind == "crossed"}
        for name, columns in vocabulary_sources(self.config).items():
            found = [view.column(column) for column in columns] or [crossed_column(crossed[name], view)]
            for column in found:
                texts = column.flat if isinstance(column, StringLists) else column
                assert isinstance(texts, Strings)
                vocabulary = self.knowledge.vocabularies[name]
                few = texts.compact()
                new = (vocabulary.known(few.values)[few.codes] < 0) & (few.codes >= 0)
                vocabulary.add(few.take(new).in_order())

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
        state.recent = share_texts(load_batch(folder / "recent"), knowledge.vocabularies)
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
