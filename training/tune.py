"""`watchnext tune`: a search over configurations under the temporal protocol, pruned and resumed where it was."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import structlog
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from data.config import Config
from data.errors import ConfigError
from data.home import Home
from models.noise import derive
from training.compare_features import days_to_encode, encode_days, feature_key
from training.compare_grid import base_config, read_model
from training.lock import only_one
from training.report import write_text
from training.tune_space import Space, choose, decode
from training.tune_toml import config_text
from training.tune_trial import run_trial, value_of

log = structlog.get_logger()

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SHOWN = 10
FOR_IMPORTANCE = 10  # complete trials from which importances are worth a look
STARTUP = 5  # trials before the median prunes


def tune(path: Path, home: Home, trials: int | None, console: Console) -> Path:
    """Search the space in the file ``path`` until ``trials`` (default: the file's) are finished, those of earlier runs
    among them; returns the best configuration's file, beside which ``trials.json`` has all.

    Raises:
        ConfigError: the space is wrong, or the search that is kept under its name was another one.
        LogError: a day has no rows.
    """
    space = read_model(path, Space)
    base = base_config(space.base, path.parent)
    space.check(base)
    folder = home.root / "tune" / space.name
    with only_one(home, f"tune-{space.name}", "tune"):
        folder.mkdir(parents=True, exist_ok=True)
        study = open_study(space, folder, _protocol(space, base, home))
        search(study, space, base, home, folder, space.trials if trials is None else trials, console)
        best = write_results(study, space, base, folder)
    console.print(table(study, space))
    return best


def open_study(space: Space, folder: Path, protocol: str) -> Study:
    """The study of this name, new or kept; trials that an interrupted run left are given up.

    Optuna keeps it in SQLite, its values as numbers and JSON.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=space.name,
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize",
        pruner=_pruner(space),
        load_if_exists=True,
    )
    kept = study.user_attrs.get("protocol")
    if kept is not None and kept != protocol:
        raise ConfigError(
            f"tune {space.name!r} was begun with other days, rows, metrics, base or space: its trials cannot be compared "
            f"with new ones. Give the search another name, or remove {folder}"
        )
    study.set_user_attr("protocol", protocol)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def search(study: Study, space: Space, base: Config, home: Home, folder: Path, trials: int, console: Console) -> None:
    """Ask, train and tell until so many trials are finished. Each trial's sampler is seeded by how many were before it, so
    a search that was interrupted asks for the same trials."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("trials", total=trials)
        while (done := len(study.get_trials(deepcopy=False, states=FINISHED))) < trials:
            progress.update(task, completed=done)
            study.sampler = _sampler(space, done)
            trial = study.ask()
            _tell(study, trial, space, base, home, folder)
            best = f", best {study.best_value:.4f}" if study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]) else ""
            progress.update(task, description=f"trials{best}")
        progress.update(task, completed=done)


def _tell(study: Study, trial: Trial, space: Space, base: Config, home: Home, folder: Path) -> None:
    """Run a trial, day after day, until it is done, pruned, or undefined (its predictions are not finite)."""
    config = space.config(base, choose(space, trial))
    train, judge = space.train_days, space.judge_days
    encoded = encode_days(config, home, folder / "encoded", [*train, *judge], judge)
    days: list[dict[str, float | None]] = []
    state, value = TrialState.COMPLETE, None
    with closing(run_trial(space, config, encoded)) as scored:
        for day, metrics in zip(judge, scored, strict=False):
            days.append(metrics)
            trial.set_user_attr(str(day), metrics)
            value = value_of(days)
            if value is not None:
                trial.report(value, len(days))
            if value is None or (len(days) < len(judge) and trial.should_prune()):
                state = TrialState.PRUNED
                break
    study.tell(trial, value if state is TrialState.COMPLETE else None, state=state)
    log.info("trial_done", number=trial.number, state=state.name.lower(), value=value, **trial.params)


def _sampler(space: Space, done: int) -> TPESampler:
    return TPESampler(seed=derive(space.seed, "trial", done) % 2**32)


def _pruner(space: Space) -> BasePruner:
    if space.pruner == "none":
        return NopPruner()
    if space.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=len(space.judge_days))
    return MedianPruner(n_startup_trials=STARTUP)


def _protocol(space: Space, base: Config, home: Home) -> str:
    """Changes with all that a trial's value depends on, and with what may be chosen."""
    days = [*space.train_days, *space.judge_days]
    there = days_to_encode(base, home, days, space.judge_days)
    content = [
        feature_key(base, home, there, days, space.judge_days),
        base.model_dump(mode="json", include={"features", "objectives", "model", "training", "seed"}),
        space.model_dump(mode="json", exclude={"trials", "reported"}),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_results(study: Study, space: Space, base: Config, folder: Path) -> Path:
    """``best.toml``, a whole configuration, and ``trials.json``. Returns the first.

    Raises:
        ConfigError: no trial was completed.
    """
    complete = _ranked(study)
    if not complete:
        raise ConfigError(f"tune {space.name!r}: no trial was completed, of {len(study.trials)}: every one was undefined")
    best = complete[0]
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state is TrialState.COMPLETE else None,
            "choices": decode(space, trial.params),
            "days": dict(trial.user_attrs),
        }
        for trial in study.get_trials(deepcopy=False, states=FINISHED)
    ]
    found = {
        "name": space.name,
        "metrics": space.metrics,
        "train": space.train,
        "judge": space.judge,
        "best": best.number,
        "importance": importance(study),
        "trials": trials,
    }
    write_text(folder / "trials.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    head = [
        f"The best of {len(trials)} trials of `watchnext tune` {space.name!r} (number {best.number}):",
        f"the mean of {', '.join(space.metrics)} on {space.judge[0]} to {space.judge[1]}, each day scored before it was",
        f"trained on, was {best.value:.4f}. It was chosen for that: expect less on later days.",
        *(f"  {key} = {json.dumps(value)}" for key, value in decode(space, best.params).items()),
    ]
    write_text(folder / "best.toml", config_text(space.config(base, decode(space, best.params)), head))
    return folder / "best.toml"


def importance(study: Study) -> Mapping[str, float] | None:
    """Each key's share in what made the best trials differ from the others (PED-ANOVA, Watanabe et al., IJCAI 2023); None
    with few trials or one key."""
    complete = _ranked(study)
    if len(complete) < FOR_IMPORTANCE or len({trial.value for trial in complete}) == 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return {key: float(share) for key, share in found.items()}


def table(study: Study, space: Space) -> Table:
    """The best trials."""
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    pruned = sum(trial.state is TrialState.PRUNED for trial in finished)
    shares = importance(study) or {}
    title = f"{len(finished)} trials, {pruned} pruned; mean of {', '.join(space.metrics)}"
    heads = [f"{key}\n{shares[key]:.0%} of the difference" if key in shares else key for key in space.space]
    result = Table("trial", "value", *heads, title=title)
    for trial in _ranked(study)[:SHOWN]:
        choices = decode(space, trial.params)
        result.add_row(str(trial.number), f"{trial.value:.4f}", *(_text(choices[key]) for key in space.space))
    return result


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _ranked(study: Study) -> list[FrozenTrial]:
    """Complete trials, the best first; of equals the earlier."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
