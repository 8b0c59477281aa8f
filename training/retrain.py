"""``watchnext retrain``: one night, from what was served to a champion that has learnt from it.

Reads top to bottom in :func:`retrain`. Killed at any point, the same command goes on where it was and ends with the same
champion; run again, it finds nothing to do.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from data.config import Config
from data.days import parse_day
from data.errors import BundleError
from data.feedback.export import export_days
from data.feedback.retention import retain
from data.home import Home
from data.log import read_day
from models.bundle import Bundle
from models.collect import collect, live_from
from models.registry import Registry
from training.days import learn_days
from training.decision import decision_path, read_decision, write_decision
from training.figures import Scored, evaluate
from training.frozen import Frozen
from training.gate import better, decide, with_slices
from training.learner import Learner
from training.lock import only_one
from training.night import Night, plan_night, trained_champion
from training.nights import Nights, Outcome
from training.plan import Plan
from training.publish import publish
from training.quarantine import Quarantine
from training.refresh import refresh_champion
from training.score import score_day
from training.screen import Screened, screen_days
from training.trial import try_out
from training.waiting import open_labels

RECENT = 10
"""Nights whose checkpoints may still lie about."""
KEPT = 28
"""Versions that stay besides those that somebody needs: a challenger and a refresh a night for two weeks."""


def retrain(config: Config, home: Home, full: bool, now: int, console: Console) -> Outcome:
    """Export, screen new days, learn, judge on the newest good day D (which the next night learns from), promote or keep,
    bring the champion's counts up to this morning, and remove served rows and versions that nobody needs any longer.

    Args:
        full: have a network that starts anew compete, whether or not its interval has come.
        now: the time, ms.
        console: for people.

    Raises:
        AlreadyRunningError: another training of this name is at work.
        WatchNextError: the configuration, the logs, the disk or the database are not as they should be. The champion is
            what it was, and the same command goes on from there.
    """
    with_slices(config)  # says at once what the gate would say at the end
    with only_one(home, config.name, "retrain"):
        export_days(config, home, now, console)
        registry, nights = Registry(home), Nights(home, config)
        serving, champion = registry.champion(config.name), trained_champion(config, registry)
        model = None if champion is None else Frozen(champion, config, home)
        screened = screen_days(config, home, model, now)
        outcome = _promoted_before_a_kill(nights, champion, now)
        if outcome is None:
            night = plan_night(config, home, champion, screened.good, full, nights)
            if isinstance(night, str):
                outcome = Outcome("nothing", night)
            elif any(record.key == night.key and record.promoted is not None for record in nights.all()):
                outcome = Outcome("nothing", f"{night.day} has been judged already", night.day)
            else:
                nights.begin(night.record, now)
                learnt = _learn(config, home, night, console)
                version = publish(config, home, learnt.plan, learnt.learner, learnt.figures)
                nights.published(night.key, version)
                with registry.hold(config.name, version):
                    challenger = registry.open(config.name, version)
                    decision = _decide_once(config, home, challenger, learnt, model, night, screened)
                    if decision["promoted"]:
                        _promote(registry, config.name, version, serving)
                nights.finish(night.key, decision["promoted"], now)
                outcome = _outcome(decision, decision_path(home, config.name, version))
        refreshed = None
        if registry.champion(config.name) is not None:
            refreshed = refresh_champion(config, home, screened.good, now)
        _forget_runs(home, config, nights)
        retain(config, home, now, live_from(registry, config.name))
        collect(registry, config.name, KEPT)
        held = tuple(judged.day for judged in screened.held)
        if held and outcome.status == "nothing":
            reasons = "; ".join(f"{judged.day}: {reason}" for judged in screened.held for reason in judged.reasons)
            outcome = replace(outcome, status="quarantined", reason=reasons)
        return replace(outcome, refreshed=refreshed, champion=registry.champion(config.name), quarantined=held)


@dataclass(frozen=True)
class Learnt:
    """A challenger: what it has learnt, by which plan, its progressive figures, and its predictions of the judged day."""

    learner: Learner
    plan: Plan
    figures: dict[str, Any]
    scored: Scored
    won: bool | None  # as the full retrain against the warm start; None: there was one of them only


def _promoted_before_a_kill(nights: Nights, champion: Bundle | None, now: int) -> Outcome | None:
    """The outcome of a night that was killed between promoting its challenger and saying so."""
    for night in nights.all():
        if night.promoted is None and champion is not None and night.challenger == champion.version:
            nights.finish(night.key, True, now)
            return Outcome("promoted", "finished after an interruption", night.day, night.trained, night.challenger)
    return None


def _learn(config: Config, home: Home, night: Night, console: Console) -> Learnt:
    """Learn by each plan, predict the judged day, and take the better challenger."""
    found = []
    for plan in night.plans:
        learner, scored = learn_days(config, home, plan, console)
        figures = {**evaluate(scored, config), "protocol": "progressive"} if scored else {}
        batch = read_day(home, config, night.day)
        encoded = learner.encode(night.day, batch, open_labels(home, config).get(night.day, frozenset()))
        baselines = learner.rates.baselines(encoded.video)
        scores = score_day(learner.trainer, learner.state, batch, night.day, encoded, baselines, learner.calibration)
        found.append(Learnt(learner, plan, figures, scores, None))
    if len(found) == 1:
        return found[0]
    warm, full = found
    wins = better([full.scored], [warm.scored], config)
    console.print(f"The full retrain is {'better' if wins else 'no better'} than the warm start")
    return replace(full if wins else warm, won=wins)


def _decide_once(
    config: Config, home: Home, challenger: Bundle, learnt: Learnt, model: Frozen | None, night: Night, screened: Screened
) -> dict[str, Any]:
    """The decision on a challenger, written beside the versions; made before a kill, it stands."""
    path = decision_path(home, config.name, challenger.version)
    made = read_decision(path)
    if made is not None and made.get("night") == night.key:
        return made
    rival = None if model is None else _rival(config, home, model, night, screened)
    facts = try_out(challenger, model.bundle if model else None, read_day(home, config, night.day), learnt.scored)
    decision = decide([learnt.scored], None if rival is None else [rival], facts, config)
    held = [day for day, judged in Quarantine(home, config.name).days().items() if judged.status == "quarantined"]
    content = {
        "name": config.name,
        "version": challenger.version,
        "champion": Registry(home).champion(config.name),
        "day": str(night.day),
        "trained": [str(day) for day in learnt.plan.days],
        "full": learnt.won,
        "quarantined": [str(day) for day in held],
        "night": night.key,
        **decision.as_json(),
    }
    write_decision(content, path)
    return content


def _rival(config: Config, home: Home, model: Frozen, night: Night, screened: Screened) -> Scored:
    """The champion's predictions of the judged day, from the screening where it made them."""
    if screened.scored is not None:
        return screened.scored
    labels = open_labels(home, config).get(night.day, frozenset())
    return Frozen(model.bundle, config, home).score(night.day, night.before, labels)


def _promote(registry: Registry, name: str, version: int, judged_against: int | None) -> None:
    """Promote, unless somebody has chosen another champion meanwhile: the challenger was not judged against that one."""
    if registry.champion(name) not in (judged_against, version):
        raise BundleError(
            f"not promoted: {name!r} has another champion than {judged_against} now; run `watchnext retrain` again"
        )
    registry.promote(name, version)


def _outcome(decision: dict[str, Any], path: Path) -> Outcome:
    reasons = "; ".join(decision["reasons"])
    return Outcome(
        "promoted" if decision["promoted"] else "kept",
        reasons or "no check failed",
        parse_day(decision["day"]),
        tuple(map(parse_day, decision["trained"])),
        decision["version"],
        decision=str(path),
    )


def _forget_runs(home: Home, config: Config, nights: Nights) -> None:
    """Remove the checkpoints of finished nights, also of one that was killed while it did this."""
    for night in nights.all()[-RECENT:]:
        if night.promoted is not None:
            for run in night.runs:
                shutil.rmtree(home.runs(config.name) / run, ignore_errors=True)
