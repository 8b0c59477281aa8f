"""What a person sees of a training run."""

import time
from collections.abc import Mapping
from datetime import date
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from data.config import Config
from models.step import OnBatch
from training.figures import Scored
from training.metrics import auc
from training.plan import Plan


class RunProgress:
    """A bar per day with examples/s and losses, and a line per scored day with its AUC per objective."""

    def __init__(self, console: Console, config: Config, plan: Plan, done: list[date]) -> None:
        self._console, self._config = console, config
        start = f"warm start from bundle {plan.start.version}" if plan.start else "from scratch"
        resumed = f", resuming after {done[-1]}" if done else ""
        console.print(f"Training [bold]{config.name}[/] on {plan.days[0]} to {plan.days[-1]}, {start}{resumed}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        self._bars = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def day(self, day: date, rows: int) -> OnBatch:
        """Start a day's bar; call what is returned after each batch."""
        task = self._bars.add_task(str(day), total=rows, speed="")
        begun, seen = time.monotonic(), 0

        def on_batch(count: int, losses: NDArray[np.float32]) -> None:
            nonlocal seen
            seen += count
            rate = seen / max(time.monotonic() - begun, 1e-9)
            text = " ".join(f"{name} {loss:.3f}" for name, loss in zip(self._config.objective_names, losses, strict=True))
            self._bars.update(task, completed=seen, total=max(rows, seen), speed=f"{rate:,.0f} examples/s  loss {text}")

        return on_batch

    def scored(self, scored: Scored) -> None:
        """Print a day's AUC before training on it."""
        parts = []
        for k, objective in enumerate(self._config.objectives):
            known = ~np.isnan(scored.targets[:, k])
            if objective.kind == "binary" and 0 < (scored.targets[known, k] > 0).sum() < known.sum():
                value = auc(scored.targets[known, k] > 0, scored.predictions[known, k])
                parts.append(f"{objective.name} {value:.3f}")
        self._console.print(f"  {scored.day}  {len(scored):>9,} rows before training on them: AUC {', '.join(parts)}")


def print_figures(console: Console, figures: Mapping[str, Any]) -> None:
    """Print the progressive figures of a run."""
    if not figures:
        return
    table = Table(
        "objective", "AUC", "GAUC", "predicted/actual", "rows", "positives", title="Each day before training on it"
    )
    for name, values in figures["objectives"].items():
        cells = [_number(values.get(key)) for key in ("auc", "gauc", "predicted_over_actual")]
        table.add_row(name, *cells, f"{values['count']:,}", f"{values['positives'] or 0:,}")
    console.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
