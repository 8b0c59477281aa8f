"""Finding the source files: patterns in folders, or files named outright."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from data.config import Config, TableConfig
from data.errors import LogError
from data.readers.table import SUFFIXES, format_of

Kind = Literal["log", "users", "videos"]


@dataclass(frozen=True)
class SourceFile:
    """A file to read. ``name`` is its path within its SOURCE folder, the same on every machine."""

    kind: Kind
    name: str
    path: Path
    size: int
    sha256: str


def discover(config: Config, sources: Sequence[Path]) -> list[SourceFile]:
    """The files of all SOURCEs, in the order of their names; one content is taken once.

    A table's patterns win over the log's. A file named outright that no pattern knows is taken for a log.

    Raises:
        LogError: a SOURCE is missing or unreadable, or no log file was found and none was named.
    """
    found: dict[tuple[Kind, str], SourceFile] = {}
    for source in sources:
        for name, path in candidates(source):
            kind = _kind(config, name) or ("log" if source.is_file() else None)
            if kind and format_of(path):
                file = SourceFile(kind, name, path, path.stat().st_size, _sha256(path))
                found.setdefault((kind, file.sha256), file)
    if not any(kind == "log" for kind, _ in found):
        raise LogError(_nothing_found(config, sources))
    return sorted(found.values(), key=lambda file: (file.kind, file.name, file.sha256))


def candidates(source: Path) -> Iterator[tuple[str, Path]]:
    """The files of a SOURCE and their names within it, hidden ones left out.

    Raises:
        LogError: there is no such SOURCE.
    """
    if source.is_file():
        yield source.name, source
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            within = path.relative_to(source)
            if path.is_file() and not any(part.startswith(".") for part in within.parts):
                yield within.as_posix(), path
    else:
        raise LogError(f"no such file or folder: {source}")


def _kind(config: Config, name: str) -> Kind | None:
    tables: tuple[tuple[Kind, TableConfig | None], ...] = (("users", config.users), ("videos", config.videos))
    for kind, table in tables:
        if table and matches(name, table.files):
            return kind
    return "log" if matches(name, config.log.files) else None


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file's name fits one of the patterns; one with a slash is held against its last folders too."""
    return any(PurePosixPath(name).match(pattern) for pattern in patterns)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}") from None


def _nothing_found(config: Config, sources: Sequence[Path]) -> str:
    seen = sorted({path.name for source in sources for _, path in candidates(source)})
    listed = ", ".join(seen[:8]) + (f" and {len(seen) - 8} more" if len(seen) > 8 else "") if seen else "none"
    return (
        f"no log files in {', '.join(map(str, sources))}: expected names like {', '.join(config.log.files)} "
        f"ending in {', '.join(SUFFIXES)}; the files there are: {listed}"
    )
