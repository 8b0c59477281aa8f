"""WatchNext against LightGBM and two MMoEs on KuaiRand: same rows, same point-in-time features, one run.

    watchnext ingest training/presets/kuairand.toml FOLDER
    python benchmarks/rivals.py torch                                  builds the peers' environment, once
    python benchmarks/quality_kuairand.py --tune [--trials 30]         30 April to 2 May: searches each peer's settings
    python benchmarks/quality_kuairand.py                              the same days: all with their tuned settings
    python benchmarks/quality_kuairand.py --report                     3 to 5 May: to be looked at once

Searching and the table without --report train on 25 to 29 April and judge, frozen, on 30 April to 2 May; --report trains
on 25 April to 2 May and judges on 3 to 5 May. Ours is the preset with each seed, to the bit as `watchnext train` and
`evaluate` have it. LightGBM has one model per objective, searched, and as one would begin: stopped early on the last
training day; the MMoEs of DeepCTR-Torch and torch-rechub have one network for all, in an environment of their own. What
they see of the features, and how they were searched: docs/peers.md.

GAUC's scores, of all, are with features as of the slate's first row. Intervals resample users and seeds together.
Prints tables and writes $WATCHNEXT_HOME/benchmarks/quality_kuairand.json (quality_kuairand_tuning.json without
--report). Tuned settings are $WATCHNEXT_HOME/benchmarks/quality_peers/chosen.json, or benchmarks/quality_peers/tuned.json.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quality_peers.networks import networks
from benchmarks.quality_peers.ours import our_scores
from benchmarks.quality_peers.table import OURS, Scores, against, outcome, show
from benchmarks.quality_peers.trees import StoppedTrees, Trees
from benchmarks.quality_peers.trials import Figures, Settings, Space, Trial, read, search, value
from benchmarks.quality_peers.window import Window, build
from data.config import load_config
from data.home import Home

OBJECTIVES = ("click", "long_view", "like")
TUNING = date(2022, 4, 25), date(2022, 4, 29), date(2022, 5, 2)
REPORTED = date(2022, 4, 25), date(2022, 5, 2), date(2022, 5, 5)
"""First and last day to train on, last day to judge by."""
RESAMPLES = 1000
SEARCH_SEED = 1
SETTINGS = Path(__file__).with_name("quality_peers") / "tuned.json"


class Peer(Protocol):
    """What is searched and compared. ``chosen`` is whatever its ``choose`` made of the trials, as JSON."""

    name: str
    title: str
    space: Space
    first: Settings

    def trial(self, window: Window, settings: Settings, seed: int) -> Figures | None: ...

    def choose(self, trials: Sequence[Trial], objectives: Sequence[str]) -> Mapping[str, Any]: ...

    def scores(self, window: Window, chosen: Mapping[str, Any], seeds: Sequence[int]) -> list[Scores]: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("training/presets/kuairand.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tune", action="store_true", help="search the peers' settings; nothing of ours is run")
    parser.add_argument("--trials", type=int, default=30, help="of each peer")
    parser.add_argument("--peers", nargs="+", default=["lightgbm", "lightgbm_stopped", "deepctr_torch", "torch_rechub"])
    parser.add_argument("--report", action="store_true", help="judge on 3 to 5 May")
    parser.add_argument("--settings", type=Path, help="the peers' tuned settings")
    options = parser.parse_args()
    if options.tune and options.report:
        parser.error("--tune looks at days up to 2 May only: not with --report")
    trees = (Trees(options.threads), StoppedTrees(options.threads))
    peers: list[Peer] = [p for p in (*trees, *networks(options.threads)) if p.name in options.peers]
    home, console = Home.from_environment(), Console()
    root = home.benchmarks / "quality_peers"
    first, last, end = REPORTED if options.report else TUNING
    train, judge = between(first, last), between(last + timedelta(days=1), end)
    config = load_config(options.config)
    window = build(config, home, root, train, judge, OBJECTIVES)
    if options.tune:
        tune(window, [peer for peer in peers if peer.space], options.trials, root, console)
        return
    kept = root / "chosen.json"
    chosen = json.loads((options.settings or (kept if kept.is_file() else SETTINGS)).read_text())
    seconds, outcomes = {}, {}
    for peer in peers:
        began = time.perf_counter()
        scores = peer.scores(window, chosen[peer.name]["settings"] if peer.space else {}, options.seeds)
        outcomes[peer.name] = [outcome(window, own, RESAMPLES) for own in scores]
        seconds[peer.name] = time.perf_counter() - began
        console.print(f"{peer.title}: {seconds[peer.name]:.0f} s for {len(options.seeds)} seeds")
    began = time.perf_counter()
    scores = [our_scores(config, window.encoded, train, judge, OBJECTIVES, seed) for seed in options.seeds]
    outcomes[OURS] = [outcome(window, own, RESAMPLES) for own in scores]
    seconds[OURS] = time.perf_counter() - began
    console.print(f"ours: {seconds[OURS]:.0f} s for {len(options.seeds)} seeds")
    figures = against(outcomes, OBJECTIVES)
    show(figures, {OURS: "ours", **{p.name: p.title for p in peers}}, OBJECTIVES, console)
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "train": [str(day) for day in train],
        "judge": [str(day) for day in judge],
        "seeds": options.seeds,
        "rows": len(window.judged.user),
        "positives": {n: int((window.judged.targets[:, k] > 0).sum()) for k, n in enumerate(OBJECTIVES)},
        "seconds": seconds,
        "settings": {p.name: chosen[p.name] for p in peers if p.space},
        **figures,
    }
    name = "quality_kuairand.json" if options.report else "quality_kuairand_tuning.json"
    (home.benchmarks / name).write_text(json.dumps(result, indent=1))


def tune(window: Window, peers: Sequence[Peer], count: int, root: Path, console: Console) -> None:
    """Search each peer in turn, a trial of each at a time; the chosen settings are written after every round."""
    searches = {
        peer.name: search(
            trials_file(root, window, peer.name),
            peer.space,
            peer.first,
            SEARCH_SEED,
            count,
            lambda settings, peer=peer: peer.trial(window, settings, SEARCH_SEED),  # type: ignore[misc]
        )
        for peer in peers
    }
    for _ in range(count):
        for peer in peers:
            trial = next(searches[peer.name])
            console.print(f"{peer.title} {trial.number}: {value(trial, window.objectives):.4f} in {trial.seconds:.0f} s")
        write_chosen(window, peers, root)
    console.print_json((root / "chosen.json").read_text())


def write_chosen(window: Window, peers: Sequence[Peer], root: Path) -> None:
    """Write what each peer chooses of its trials so far, beside what others that are not searched now had chosen."""
    path = root / "chosen.json"
    chosen = json.loads(path.read_text()) if path.is_file() else {}
    for peer in peers:
        trials = read(trials_file(root, window, peer.name))
        settings = peer.choose(trials, window.objectives)
        whole = max(trials, key=lambda trial: value(trial, window.objectives))
        chosen[peer.name] = {"trials": len(trials), "settings": settings, "best": whole.figures}
    path.write_text(json.dumps(chosen, indent=1))


def trials_file(root: Path, window: Window, name: str) -> Path:
    return root / "trials" / window.key / f"{name}.jsonl"


def between(first: date, last: date) -> list[date]:
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


if __name__ == "__main__":
    main()
