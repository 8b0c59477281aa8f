"""A vocabulary grows from day to day without moving old ids."""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from data.columns import Strings

Numbers = NDArray[np.int32]

FEW = 256
"""So few texts are looked up as often as they are asked for."""

ASKED = 8
"""Of so many longer sequences of texts, those asked for last, the numbers are kept at hand."""

_NULL = np.array([-1], np.int32)


class Vocabulary:
    """Texts numbered 0, 1, ... by first appearance.

    A text is *admitted* (has an embedding row of its own) from the day after its first; until then it is served, and
    trained, through the row of the unseen. So the unseen row learns from the very rows that it will be used for.
    """

    def __init__(self, texts: Iterable[str] = (), admitted: int = 0) -> None:
        self.texts = list(texts)
        self.admitted = admitted
        self._asked: dict[int, tuple[Sequence[str], Numbers, int]] = {}
        self._number = {text: number for number, text in enumerate(self.texts)}
        self.get: Callable[[str], int | None] = self._number.get  # the number of a text, None where it was never added

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, texts: Iterable[str]) -> None:
        """Number the texts that are new; they are admitted by :meth:`admit`."""
        for text in texts:
            if text not in self._number:
                self._number[text] = len(self.texts)
                self.texts.append(text)

    def known(self, texts: Sequence[str]) -> Numbers:
        """The number of each text, -1 where it was never added, and behind them the -1 of a null [n + 1]."""
        if texts is self.texts:
            return np.append(np.arange(len(texts), dtype=np.int32), _NULL)
        asked = self._asked.get(id(texts))
        found = self._look_up(texts) if asked is None else self._up_to_date(*asked)
        if len(texts) > FEW:
            self._asked[id(texts)] = texts, found, len(self.texts)  # the texts too: none gets their place in memory
            for oldest in list(self._asked)[:-ASKED]:
                self._asked.pop(oldest, None)
        return found

    def _up_to_date(self, texts: Sequence[str], found: Numbers, size: int) -> Numbers:
        """The numbers of texts, as they were ``found`` when the vocabulary had ``size``; more may have come to either."""
        if size < len(self.texts):
            found = found.copy()
            new = np.flatnonzero(found[:-1] < 0)
            found[new] = self._look_up([texts[place] for place in new.tolist()])[:-1]
        if len(found) <= len(texts):
            found = np.append(found[:-1], self._look_up(texts[len(found) - 1 :]))
        return found

    def number(self, column: Strings) -> Numbers:
        """The number of each row's text [n], -1 where it is null or was never added. Texts that were asked for are not
        looked up again."""
        if column.values is self.texts:
            return column.codes
        few = column if id(column.values) in self._asked else column.compact()
        return self.known(few.values)[few.codes]

    def _look_up(self, texts: Sequence[str]) -> Numbers:
        return np.fromiter(chain(map(self._number.get, texts, repeat(-1)), _NULL), np.int32, len(texts) + 1)

    def forget(self) -> None:
        """Let go of the texts that were asked for last: a day's are asked for several times, and then no more."""
        self._asked.clear()

    def admit(self) -> None:
        """Give every text added so far its own row."""
        self.admitted = len(self.texts)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"admitted": self.admitted, "texts": self.texts}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(values["texts"], values["admitted"])


class Numbering:
    """Numbers of texts within one call: a vocabulary's, and further ones for texts that it doesn't hold yet; or those of
    another numbering, which is complete, and further ones. Threads may share it."""

    def __init__(self, vocabulary: "Vocabulary | Numbering") -> None:
        self._vocabulary = vocabulary
        self._first = len(vocabulary)
        self._further: dict[str, int] = {}
        self._lock = Lock()
        self._tables: dict[int, tuple[Sequence[str], Numbers]] = {}

    def __len__(self) -> int:
        return self._first + len(self._further)

    def get(self, text: str) -> int | None:
        number = self._vocabulary.get(text)
        return self._further.get(text) if number is None else number

    def __call__(self, text: str) -> int:
        number = self._vocabulary.get(text)
        if number is None:
            number = self._further.setdefault(text, self._first + len(self._further))
        return number

    def known(self, texts: Sequence[str]) -> Numbers:
        """The number of each text so far, -1 where it has none, and the -1 of a null [n + 1]."""
        found = self._vocabulary.known(texts)
        if self._further:
            found = found.copy()
            for place in np.flatnonzero(found[:-1] < 0).tolist():
                found[place] = self._further.get(texts[place], -1)
        return found

    def numbers(self, texts: Sequence[str]) -> Numbers:
        """The number of each text, and the -1 of a null [n + 1]; those of the same sequence are looked up once."""
        with self._lock:
            if id(texts) not in self._tables:
                found = self._vocabulary.known(texts)
                new = np.flatnonzero(found[:-1] < 0).tolist()
                if new:
                    found = found.copy()
                    found[new] = [self(texts[place]) for place in new]
                self._tables[id(texts)] = texts, found  # kept, so that no other sequence gets its place in memory
            return self._tables[id(texts)][1]

    def texts(self) -> list[str]:
        """The text of each number; to be asked again after further ones."""
        first = self._vocabulary.texts() if isinstance(self._vocabulary, Numbering) else self._vocabulary.texts
        if not self._further:
            return first
        both = [*first, *self._further]
        self._tables[id(both)] = both, np.append(np.arange(len(both), dtype=np.int32), _NULL)
        return both

    def is_own(self, texts: Sequence[str]) -> bool:
        """Whether these are the vocabulary's own texts, each at its number."""
        return isinstance(self._vocabulary, Vocabulary) and texts is self._vocabulary.texts

    def has_numbered(self, texts: Sequence[str]) -> bool:
        """Whether :meth:`numbers` was asked for these before."""
        return id(texts) in self._tables
