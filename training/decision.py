"""A decision of the gate on disk: every figure as JSON, and the same as one self-contained page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import BundleError
from data.home import Home
from training.pages import page_templates
from training.report import write_text

Figures = Mapping[str, Any]


def decision_path(home: Home, name: str, version: int) -> Path:
    """Where the decision on a version is; the page lies beside it. Bundles are immutable, so it is in none."""
    return home.registry(name) / "decisions" / f"{version}.json"


def read_decision(path: Path) -> dict[str, Any] | None:
    """A decision, or None where none was made.

    Raises:
        BundleError: the file cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read the decision {path}: {error}") from None


def write_decision(decision: Figures, path: Path) -> Path:
    """Write both files, each whole or not at all, the JSON last: where it is, the decision stands. Returns the page.

    Raises:
        BundleError: they cannot be written.
    """
    page = path.with_suffix(".html")
    try:
        write_text(page, render(decision))
        write_text(path, json.dumps(decision, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise BundleError(f"cannot write the decision {path}: {error.strerror or error}") from None
    return page


def render(decision: Figures) -> str:
    """The page of a decision."""
    environment = page_templates()
    environment.filters["figure"] = _figure
    kinds = dict.fromkeys(check["kind"] for check in decision["checks"])
    by_kind = {kind: [check for check in decision["checks"] if check["kind"] == kind] for kind in kinds}
    return environment.get_template("decision.html").render(decision=decision, by_kind=by_kind)


def _figure(value: Any) -> str:
    """A figure as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_figure(part)}" for name, part in value.items()) or "none"
    if isinstance(value, bool) or not isinstance(value, int | float | list | tuple):
        return str(value)
    if isinstance(value, list | tuple):
        return " to ".join(map(_figure, value)) if len(value) == 2 else ", ".join(map(_figure, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"
