"""The bundle: an immutable folder that holds everything one trained model needs to be served.

::

    <version>/                     what TensorFlow Serving loads:
        saved_model.pb, variables/
        assets.extra/              what is ours:
            manifest.json          what is in the folder, with a checksum of every other file
            config.json            the configuration it was trained with
            scorer.*               the compiled scorer
            state/                 features: vocabularies, scales, aggregates, users' state
            catalogue/             the known videos and their features
            users/                 what is settled of the known users' features
            generators/            the generators' indexes
            trainer/               weights and optimizer state, for warm starts
            metrics.json

Nothing in it is a pickle. It is checked as a whole when it is opened: a missing, altered or unexpected file refuses it.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.config import Config, Name, parse_config
from data.errors import BundleError, ConfigError
from data.features.layout import build_layout

FORMAT = 1
EXTRA = "assets.extra"
MANIFEST = f"{EXTRA}/manifest.json"
CONFIG = f"{EXTRA}/config.json"

MAX_JSON_BYTES = 16 << 20
"""Of the manifest and the configuration, which are read whole."""
MAX_FILES = 10_000
MAX_FILE_BYTES = 1 << 40

LIBRARIES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "pydantic",
    "onnxruntime",
    "ai-edge-litert",
    "tf2onnx",
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Window(_Frozen):
    """The days that the model has been trained on, both inclusive."""

    first_day: date
    last_day: date


class FileFacts(_Frozen):
    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: Sha256


class Manifest(_Frozen):
    """What is in a bundle. ``files`` has every file but the manifest, by its path in the folder (with ``/``)."""

    format: Literal[1]
    name: Name
    version: int
    created_at: AwareDatetime
    window: Window
    seed: int
    libraries: Mapping[str, str]
    objectives: tuple[str, ...]
    spec: Sha256  # spec_hash of the configuration, as the code that trained the model laid features out
    reference_means: Mapping[str, float | None]  # per objective, in the training data; null: it had none
    utilisation: Mapping[str, tuple[float, ...]]  # per objective, the mean gate weight of each expert
    files: Mapping[str, FileFacts]
    refreshed_from: int | None = None  # the version whose weights these are, trained on ``window``; only counts are newer

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        for key in ("reference_means", "utilisation"):
            unknown = sorted(set(getattr(self, key)) - set(self.objectives))
            if unknown:
                raise ValueError(f"{key} names {unknown[0]!r}, which is none of the objectives {', '.join(self.objectives)}")
        if self.window.first_day > self.window.last_day:
            raise ValueError(f"the window ends on {self.window.last_day}, before its first day {self.window.first_day}")
        return self


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: where it lies, and what it says of itself."""

    folder: Path
    manifest: Manifest
    config: Config

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def extra(self) -> Path:
        return self.folder / EXTRA

    @property
    def state(self) -> Path:
        return self.extra / "state"

    @property
    def catalogue(self) -> Path:
        return self.extra / "catalogue"

    @property
    def users(self) -> Path:
        return self.extra / "users"

    @property
    def generators(self) -> Path:
        return self.extra / "generators"

    @property
    def trainer(self) -> Path:
        return self.extra / "trainer"

    @property
    def metrics(self) -> Path:
        return self.extra / "metrics.json"


def spec_hash(config: Config) -> str:
    """The SHA-256 of how this code lays the configuration's features and predictions out.

    A bundle whose hash differs from the one recomputed when it is opened was made by code that ordered features or
    objectives otherwise: its weights would meet the wrong columns.
    """
    objectives = [[o.name, o.kind, o.transform if o.kind == "regression" else None, o.given] for o in config.objectives]
    content = {"format": FORMAT, "layout": asdict(build_layout(config)), "objectives": objectives}
    return _digest(content)


def installed_libraries() -> dict[str, str]:
    """The versions of Python and of those libraries that shape a bundle and are installed. Imports none of them."""
    versions = {"python": python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object in the one way that is read back."""
    text = _render(content)
    if len(text) > MAX_JSON_BYTES:
        raise BundleError(f"{path.name} would have {len(text)} bytes: at most {MAX_JSON_BYTES} are read back")
    path.write_bytes(text)


def digest_files(folder: Path) -> dict[str, FileFacts]:
    """Size and checksum of every file but the manifest.

    Raises:
        BundleError: naming what is neither a file nor a folder, or too large.
    """
    facts = {}
    for name, size in _walk(folder):
        if name != MANIFEST:
            facts[name] = FileFacts(bytes=size, sha256=_sha256(folder / name))
    return facts


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with a checksum of itself."""
    content = manifest.model_dump(mode="json")
    write_json(folder / MANIFEST, {**content, "self": _digest(content)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in ``folder``, checked in itself but not against the other files.

    Raises:
        BundleError: it is missing, damaged or of another format.
    """
    content = _read_json(folder / MANIFEST)
    if content.pop("self", None) != _digest(content):
        raise BundleError(f"{folder / MANIFEST} is damaged: its checksum of itself does not match")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise BundleError(f"{folder / MANIFEST} is not a manifest of format {FORMAT}: {where} {detail['msg']}") from None


def read_bundle(folder: Path, name: str, version: int, verify: bool = True) -> Bundle:
    """Open the bundle in ``folder``, which should be this version of this name.

    Which files there are and how long they are is always checked; ``verify`` says whether every file is read and its
    checksum compared too.

    Raises:
        BundleError: naming the file that is missing, damaged or unexpected, or what else does not match.
    """
    manifest = read_manifest(folder)
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(f"{folder / MANIFEST} is of {manifest.name!r} {manifest.version}, expected {name!r} {version}")
    _check_files(folder, manifest, verify)
    try:
        config = parse_config(_read_json(folder / CONFIG), str(folder / CONFIG))
    except ConfigError as error:
        raise BundleError(str(error)) from None
    if spec_hash(config) != manifest.spec:
        raise BundleError(
            f"{folder / CONFIG}: its feature spec hashes to {spec_hash(config)[:12]}, the manifest says "
            f"{manifest.spec[:12]}: the bundle was made by code that lays features out otherwise"
        )
    if (config.name, config.objective_names) != (manifest.name, manifest.objectives):
        raise BundleError(f"{folder / CONFIG}: its name or objectives are not those of {MANIFEST}")
    return Bundle(folder, manifest, config)


def _check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    found = dict(_walk(folder))
    found.pop(MANIFEST, None)
    for name in sorted(manifest.files.keys() - found.keys()):
        raise BundleError(f"{folder / name} is missing")
    for name in sorted(found.keys() - manifest.files.keys()):
        raise BundleError(f"{folder / name} is not in {MANIFEST}")
    if CONFIG not in found:
        raise BundleError(f"{folder / CONFIG} is missing")
    for name, facts in manifest.files.items():
        if found[name] != facts.bytes:
            raise BundleError(f"{folder / name} has {found[name]} bytes, {MANIFEST} says {facts.bytes}")
        if (verify or name == CONFIG) and _sha256(folder / name) != facts.sha256:
            raise BundleError(f"{folder / name} is damaged: its checksum is not the one in {MANIFEST}")


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every file below ``folder``, which may hold nothing but files and folders."""
    pending, count = [folder], 0
    while pending:
        try:
            entries = [(entry, entry.stat(follow_symlinks=False)) for entry in os.scandir(pending.pop())]
        except OSError as error:
            raise BundleError(f"cannot list {error.filename}: {error.strerror}") from None
        for entry, facts in sorted(entries, key=lambda pair: pair[0].name):
            if stat.S_ISDIR(facts.st_mode):
                pending.append(Path(entry.path))
                continue
            if not stat.S_ISREG(facts.st_mode):
                raise BundleError(f"{entry.path} is neither a file nor a folder: a bundle holds no links")
            count += 1
            if facts.st_size > MAX_FILE_BYTES or count > MAX_FILES:
                raise BundleError(f"{entry.path}: a bundle has at most {MAX_FILES} files of {MAX_FILE_BYTES} bytes")
            yield Path(entry.path).relative_to(folder).as_posix(), facts.st_size


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object written by :func:`write_json`, to the byte: anything else is damage."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > MAX_JSON_BYTES:
            raise BundleError(f"{path} should be a file of at most {MAX_JSON_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or _render(content) != data:
            raise ValueError("it is not as it was written")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}") from None
    return content


def _render(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_render(content)).hexdigest()
