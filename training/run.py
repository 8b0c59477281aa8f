"""``watchnext train``: train on days by hand, publish a bundle and make it the champion, no questions asked."""

import shutil
from datetime import date

from rich.console import Console

from data.config import Config
from data.home import Home
from models.registry import Registry
from training.days import learn_days, run_folder
from training.figures import evaluate
from training.lock import only_one
from training.plan import plan_run
from training.progress import print_figures
from training.publish import publish


def train(config: Config, home: Home, since: date | None, until: date | None, fresh: bool, console: Console) -> int:
    """Train on the days in [since, until], publish a bundle and promote it. Returns its version.

    A run that was interrupted goes on after its last finished day and ends with the same bundle.

    Raises:
        WatchNextError: what :func:`training.plan.plan_run`, the readers and the registry raise.
        AlreadyRunningError: another training of this name is at work.
    """
    with only_one(home, config.name, "train"):
        plan = plan_run(config, home, since, until, fresh)
        learner, scored = learn_days(config, home, plan, console)
        figures = {**evaluate(scored, config), "protocol": "progressive"} if scored else {}
        version = publish(config, home, plan, learner, figures)
        Registry(home).promote(config.name, version)
        shutil.rmtree(run_folder(home, config, plan))
    print_figures(console, figures)
    console.print(f"Published and promoted bundle [bold]{config.name} {version}[/]")
    return version
