"""`watchnext compare`: a grid of designs x seeds on the same days, resumed where it was, as one page and its JSON."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from data.home import Home
from training.compare_figures import Outcome, compare, summary
from training.compare_grid import base_config, load_grid
from training.compare_report import write_page
from training.compare_run import MOST_JOBS, Plan, plan_cells, run_cells
from training.lock import only_one


def compare_grid(path: Path, home: Home, jobs: int | None, console: Console, seeds: int | None = None) -> Path:
    """Run what is not done of the grid in the file ``path``, and write ``compare/<name>/index.html`` and ``.json``.

    Args:
        jobs: cells beside each other, each in a process of its own; 0: one after the other in this one. Default: as many
            as there are cores, at most eight.
        seeds: only the first so many of the grid's.

    Returns:
        The page. Nothing is published: no bundle is made.

    Raises:
        ConfigError: the grid or a configuration that it makes is wrong.
        CellsFailedError: some cells failed.
    """
    grid = load_grid(path)
    base = base_config(grid.base, path.parent)
    if seeds is not None:
        grid = grid.model_copy(update={"seeds": grid.seeds[:seeds]})
    with only_one(home, f"compare-{grid.name}", "compare"):
        plan = plan_cells(grid, base, home, console)
        run_cells(plan, min(os.cpu_count() or 1, MOST_JOBS) if jobs is None else jobs, console)
        page = home.root / "compare" / grid.name / "index.html"
        write_page(document(plan), page, page.with_suffix(".json"))
    return page


def document(plan: Plan) -> dict[str, Any]:
    """All that the page shows, from the cells' files."""
    grid = plan.grid
    found: dict[str, list[Outcome]] = {}
    for cell in plan.cells:
        found.setdefault(cell.design.name, []).append(Outcome.load(cell.folder))
    baseline = found[grid.baseline][0].figures["objectives"]
    judged = [objective for objective in plan.base.objectives if objective.name in baseline]
    kinds = {objective.name: objective.kind for objective in judged}
    variants = {design.name: found[design.name] for design in plan.designs if design.only is None}
    only = {design.only: found[design.name] for design in plan.designs if design.only in kinds}
    figures = compare(variants, only, grid.baseline, kinds)
    _describe(figures, plan)
    return {
        **grid.model_dump(
            mode="json", include={"name", "base", "seeds", "train", "report", "baseline", "match", "bootstrap"}
        ),
        "dataset": plan.base.dataset,
        "overrides": dict(grid.overrides),
        "objectives": {
            o.name: {"family": o.family, "kind": o.kind, "given": o.given, **_counts(baseline[o.name])} for o in judged
        },
        "cores": os.cpu_count(),
        "says": list(summary(figures, kinds, grid.baseline)),
        "cells": [{"design": c.design.name, "seed": c.seed, "key": c.folder.name} for c in plan.cells],
        **figures,
    }


def _describe(figures: Mapping[str, Any], plan: Plan) -> None:
    """Add to each network's figures what it is."""
    for design in plan.designs:
        part = figures["variants"].get(design.name) if design.only is None else figures["single_task"].get(design.only)
        if part is not None:
            part["trunk"] = design.config.model.trunk.model_dump(mode="json")
            part["objective_names"] = list(design.config.objective_names)
            part["widths_factor"] = plan.factors[design.name]
    for variant in plan.grid.variants:
        figures["variants"][variant.name]["overrides"] = dict(variant.overrides)


def _counts(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: figures[key] for key in ("count", "positives", "users")}


def read(page: Path) -> dict[str, Any]:
    """The JSON beside a page."""
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text())
    return found
