"""The repository itself: what may be in its files, and that its presets can be read."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from data.config import load_config

ROOT = Path(__file__).resolve().parent.parent
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:work|root|opt|Users|mnt|tmp)/\w")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.|(?<!emit-)index[-]url|(?<!emit-)find[-]links|file:[/]{2}")
LARGEST = 1_000_000


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git clone")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_machine_path_or_a_registry() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize("line", ["see /" + "opt/data", "--index" + "-url x", "https://pypi" + ".org/simple"])
def test_the_check_above_can_fail(line: str) -> None:
    assert MACHINE_PATH.search(line) or REGISTRY.search(line)


def test_no_file_is_large() -> None:
    assert [path for path in tracked() if path.stat().st_size > LARGEST] == []


def test_every_requirement_is_pinned_and_hashed() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        blocks = re.split(r"\n(?=[A-Za-z])", path.read_text().strip())
        assert len(blocks) > 10
        for block in blocks:
            assert re.match(r"[a-zA-Z0-9_.\-\[\],]+==\S+", block), f"{path.name}: {block[:80]}"
            assert "--hash=sha256:" in block, f"{path.name}: {block[:80]}"


def test_what_serves_is_pinned_without_training_libraries() -> None:
    text = (ROOT / "requirements" / "serve.txt").read_text()
    assert not re.search(r"^(tensorflow|keras|pandas|pyarrow|matplotlib|scikit-learn|lightgbm)", text, re.MULTILINE)


def test_all_locks_agree_on_versions() -> None:
    versions: dict[str, set[str]] = {}
    for path in (ROOT / "requirements").glob("*.txt"):
        for name, version in re.findall(r"^([\w.\-\[\]]+)==(\S+)", path.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "presets").glob("*.toml")), ids=lambda path: path.stem)
def test_a_preset_is_a_recipe_headed_by_its_command(path: Path) -> None:
    load_config(path)
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "watchnext" in head


def test_the_package_cannot_be_uploaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]


def test_ignore_rules_never_hide_code() -> None:
    for name in (".gitignore", ".dockerignore"):
        rules = (ROOT / name).read_text().splitlines()
        assert "/var/" in rules or "/var" in rules
        hiding = {rule for rule in rules if rule.strip("/") in ("data", "models", "service", "training")}
        assert not hiding | ({"var", "var/"} & set(rules))
