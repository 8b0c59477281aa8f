"""models/bundle.py: what a manifest says, and that every kind of damage is refused with the file named."""

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from data.config import Config, parse_config
from data.errors import BundleError
from models.bundle import (
    CONFIG,
    EXTRA,
    MANIFEST,
    FileFacts,
    Manifest,
    Window,
    _digest,
    digest_files,
    installed_libraries,
    read_bundle,
    read_manifest,
    spec_hash,
    write_json,
    write_manifest,
)

VERSION = 2026010201


def _config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "name": "feed",
        "dataset": "feed",
        "seed": 7,
        "log": {},
        "labels": {"click": {"type": "binary"}, "seconds": {"type": "number"}},
        "features": [{"kind": "category", "name": "user", "column": "user_id"}],
        "objectives": [
            {"name": "click", "family": "engagement", "label": "click", "kind": "binary"},
            {"name": "watch", "family": "engagement", "label": "seconds", "kind": "regression"},
        ],
    }
    return parse_config({**values, **changes}, "test")


def _manifest(folder: Path, config: Config, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "format": 1,
        "name": "feed",
        "version": VERSION,
        "created_at": datetime(2026, 1, 3, tzinfo=UTC),
        "window": Window(first_day=date(2026, 1, 1), last_day=date(2026, 1, 2)),
        "seed": config.seed,
        "libraries": installed_libraries(),
        "objectives": config.objective_names,
        "spec": spec_hash(config),
        "reference_means": {"click": 0.25, "watch": None},
        "utilisation": {"click": (0.5, 0.5)},
        "files": digest_files(folder),
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole bundle."""
    folder, config = tmp_path / "bundle", _config()
    for name in ("saved_model.pb", f"{EXTRA}/scorer.tflite", f"{EXTRA}/state/ids.json", "variables/variables.index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"abc")
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    write_manifest(folder, _manifest(folder, config))
    return folder


def test_opens_with_paths_manifest_and_config(folder: Path) -> None:
    bundle = read_bundle(folder, "feed", VERSION)
    assert bundle.config == _config()
    assert (bundle.name, bundle.version, bundle.manifest.seed) == ("feed", VERSION, 7)
    assert bundle.state == folder / "assets.extra" / "state"
    assert bundle.manifest.reference_means == {"click": 0.25, "watch": None}
    assert set(bundle.manifest.files) == {
        "saved_model.pb",
        "variables/variables.index",
        "assets.extra/config.json",
        "assets.extra/scorer.tflite",
        "assets.extra/state/ids.json",
    }
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-4
    assert bundle.manifest.files["saved_model.pb"] == FileFacts(bytes=3, sha256=abc)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_any_flipped_byte_of_any_file_is_refused(folder: Path) -> None:
    assert len(_files(folder)) == 6
    for path in _files(folder):
        whole = path.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(BundleError, match=path.name):
                read_bundle(folder, "feed", VERSION)
        path.write_bytes(whole)
    read_bundle(folder, "feed", VERSION)


def test_any_missing_or_truncated_file_is_refused_without_reading_the_others(folder: Path) -> None:
    for path in _files(folder):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(BundleError, match=path.name):
            read_bundle(folder, "feed", VERSION, verify=False)
        path.unlink()
        with pytest.raises(BundleError, match=path.name):
            read_bundle(folder, "feed", VERSION, verify=False)
        path.write_bytes(whole)


def test_flipped_content_passes_only_when_told_not_to_verify(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"abd")
    read_bundle(folder, "feed", VERSION, verify=False)
    with pytest.raises(BundleError, match=r"saved_model.pb is damaged"):
        read_bundle(folder, "feed", VERSION)


def test_unknown_file_and_link_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "extra.bin").write_bytes(b"?")
    with pytest.raises(BundleError, match=r"extra.bin is not in assets.extra/manifest.json"):
        read_bundle(folder, "feed", VERSION)
    (folder / "extra.bin").unlink()
    whole = (folder / "saved_model.pb").read_bytes()
    (tmp_path / "elsewhere").write_bytes(whole)
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"saved_model.pb is neither a file nor a folder"):
        read_bundle(folder, "feed", VERSION)


def test_linked_folder_and_pipe_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "variables").rename(tmp_path / "variables")
    (folder / "variables").symlink_to(tmp_path / "variables")
    with pytest.raises(BundleError, match="variables is neither"):
        read_bundle(folder, "feed", VERSION)
    (folder / "variables").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BundleError, match="pipe is neither"):
        digest_files(folder)


def test_a_manifest_that_was_altered_and_still_makes_sense_is_refused(folder: Path) -> None:
    whole = (folder / MANIFEST).read_text()
    for before, after in (('"seed": 7', '"seed": 8'), ('"click": 0.25', '"click": 0.35'), ('"seed": 7', '"seed":  7')):
        assert before in whole
        (folder / MANIFEST).write_text(whole.replace(before, after))
        with pytest.raises(BundleError, match=r"manifest.json is damaged"):
            read_bundle(folder, "feed", VERSION)


@pytest.mark.parametrize("text", [b"", b"[1]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        read_bundle(folder, "feed", VERSION)


def test_another_format_or_an_unknown_key_is_refused(folder: Path) -> None:
    whole = json.loads((folder / MANIFEST).read_text())
    for change, text in (({"format": 2}, "format Input should be 1"), ({"surprise": 1}, "surprise Extra inputs")):
        content = {key: value for key, value in {**whole, **change}.items() if key != "self"}
        _write_signed(folder, content)
        with pytest.raises(BundleError, match=text):
            read_manifest(folder)


def _write_signed(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, {**content, "self": _digest(content)})


def test_another_name_version_spec_or_objectives_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="is of 'feed' 2026010201, expected 'feed' 2026010202"):
        read_bundle(folder, "feed", VERSION + 1)
    with pytest.raises(BundleError, match="expected 'food'"):
        read_bundle(folder, "food", VERSION)
    write_manifest(folder, _manifest(folder, _config(), spec="0" * 64))
    with pytest.raises(BundleError, match="the manifest says 000000000000"):
        read_bundle(folder, "feed", VERSION)
    write_manifest(folder, _manifest(folder, _config(), objectives=("watch", "click")))
    with pytest.raises(BundleError, match="its name or objectives"):
        read_bundle(folder, "feed", VERSION)


def test_invalid_configuration_is_refused_with_the_key(folder: Path) -> None:
    write_json(folder / CONFIG, {**_config().model_dump(mode="json"), "surprise": 1})
    write_manifest(folder, _manifest(folder, _config()))
    with pytest.raises(BundleError, match=r"config.json is not a valid configuration:\n  surprise: unknown key"):
        read_bundle(folder, "feed", VERSION)


def test_manifest_rejects_what_cannot_be(folder: Path) -> None:
    with pytest.raises(ValueError, match="utilisation names 'like'"):
        _manifest(folder, _config(), utilisation={"like": (1.0,)})
    with pytest.raises(ValueError, match="ends on 2026-01-02, before"):
        _manifest(folder, _config(), window=Window(first_day=date(2026, 1, 3), last_day=date(2026, 1, 2)))


def test_spec_hash_moves_with_the_layout_and_the_objectives_only() -> None:
    base = spec_hash(_config())
    assert spec_hash(_config(seed=8)) == base
    wider = {"kind": "category", "name": "user", "column": "user_id", "dim": 9}
    assert spec_hash(_config(features=[wider])) != base
    assert spec_hash(_config(objectives=[_config().objectives[0].model_dump()])) != base
