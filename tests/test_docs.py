"""The README and docs/ say what is so: commands exist, the tree is complete, settings are documented, examples run."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import watchnext
from data.config import parse_config
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CODE = ("data", "models", "training", "service", "benchmarks")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(tool: str) -> list[list[str]]:
    """The indented lines of the README that call ``tool``, as words without the comment."""
    lines = re.findall(rf"^    ({tool} .*)$", README, re.MULTILINE)
    return [line.split(" #")[0].split()[1:] for line in lines]


def test_the_two_commands_come_first() -> None:
    assert [words[0] for words in commands("make")[:2]] == ["demo", "test"]


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"install", "check", "test", "demo", "serve"} <= targets
    assert {words[0] for words in commands("make")} <= targets


def test_every_watchnext_command_and_option_exists() -> None:
    shown = commands("watchnext")
    groups = {group.name for group in watchnext.app.registered_groups}
    names = {command.name or command.callback.__name__ for command in watchnext.app.registered_commands if command.callback}
    assert names | groups == {words[0] for words in shown}
    for words in shown:
        path = words[: 2 if words[0] in groups else 1]
        help_text = CliRunner().invoke(watchnext.app, [*path, "--help"], env={"COLUMNS": "200"})
        assert help_text.exit_code == 0, words
        for option in (word for word in words if word.startswith("--")):
            assert option in help_text.output, words


def tree() -> dict[str, str]:
    """Path of each file in the README's tree, and its line."""
    found, folders = {}, []
    for line in blocks("text")[0].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, says = line.strip().partition(" ")
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            found["/".join([*folders, name])] = says.strip()
    return found


def test_every_file_of_the_tree_exists_and_has_its_line() -> None:
    assert [name for name in tree() if not (ROOT / name).is_file()] == []
    assert [name for name, says in tree().items() if not says] == []


def test_every_module_is_in_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files", *CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git clone")
    modules = {name for name in listed.stdout.split() if name.endswith(".py") and not name.endswith("__init__.py")}
    assert sorted(modules - tree().keys()) == []


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_of_the_service_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    variables = [f"WATCHNEXT_{name.upper()}" for name in Settings.model_fields]
    assert [variable for variable in variables if f"`{variable}`" not in page] == []
    documented = set(re.findall(r"^\| `(WATCHNEXT_\w+)`", page, re.MULTILINE))
    assert documented <= {*variables, "WATCHNEXT_DATABASE_URL"}


def test_the_readmes_configuration_ingests_the_logs_it_describes(tmp_path: Path, home: Path) -> None:
    (tmp_path / "feed.toml").write_text(blocks("toml")[0])
    exports = tmp_path / "exports"
    exports.mkdir()
    first = 1_767_222_000  # 2026-01-01 00:00 in Berlin, in seconds
    rows = [f"u{i % 7},v{i % 5},{first + i * 1800},{i % 10},phone,{i % 2},{i % 3 // 2},{i * 10}" for i in range(96)]
    header = "uid,item,shown_at,slot,device,click,like,watched_ms"
    (exports / "impressions.csv").write_text("\n".join([header, *rows]) + "\n")
    (exports / "videos.csv").write_text("item,author,length\n" + "".join(f"v{i},a{i % 2},{10 + i}\n" for i in range(5)))
    result = CliRunner().invoke(watchnext.app, ["ingest", str(tmp_path / "feed.toml"), str(exports)])
    assert result.exit_code == 0, result.output
    days = sorted(path.name for path in (home / "logs" / "feed").glob("day=*"))
    assert days == ["day=2026-01-01", "day=2026-01-02"]


def test_the_readmes_request_fits_the_readmes_configuration() -> None:
    from service.schemas import RecommendRequest

    body = re.search(r"-d '(\{.*\})'", README)
    assert body is not None
    request = RecommendRequest.model_validate(json.loads(body[1]))
    config = parse_config(tomllib.loads(blocks("toml")[0]), "README.md")
    assert set(request.context) <= set(config.log.context)


def test_every_command_explains_itself() -> None:
    def leaves(group: typer.Typer) -> list[str | None]:
        own = [command.callback.__doc__ for command in group.registered_commands if command.callback]
        return own + [text for sub in group.registered_groups if sub.typer_instance for text in leaves(sub.typer_instance)]

    assert len(leaves(watchnext.app)) >= 12
    assert all(leaves(watchnext.app))
