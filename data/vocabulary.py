"""A vocabulary grows from day to day without moving old ids."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path


class Vocabulary:
    """Texts numbered 0, 1, ... by first appearance.

    A text is *admitted* (has an embedding row of its own) from the day after its first; until then it is served, and
    trained, through the row of the unseen. So the unseen row learns from the very rows that it will be used for.
    """

    def __init__(self, texts: Iterable[str] = (), admitted: int = 0) -> None:
        self.texts = list(texts)
        self.admitted = admitted
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
    another numbering, which is complete, and further ones."""

    def __init__(self, vocabulary: "Vocabulary | Numbering") -> None:
        self._vocabulary = vocabulary
        self._first = len(vocabulary)
        self._further: dict[str, int] = {}

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
