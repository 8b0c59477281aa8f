"""Follows the registry: a new champion, a shadow, a canary are loaded and warmed aside, then put in place."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Protocol

import structlog

from data.errors import WatchNextError
from data.memory import give_back
from models.registry import Champion
from models.rollouts import Kind, Rollout, Rollouts
from service.aside import Aside
from service.canary import Canary
from service.loading import served_name, warm
from service.memory import settle
from service.rehearsal import rehearse, score_again
from service.serving import Serving
from service.shadow import Shadow
from service.together import reports_elsewhere

if TYPE_CHECKING:
    from service.inputs import Query
    from service.runtime import Runtime
    from service.settings import Settings

log = structlog.get_logger()

AGAIN_AFTER = 60.0
"""Seconds after which a refused bundle is tried again: a slow copy may have been completed."""


class VersionLoader(Protocol):
    """Loads one version; tests bring their own."""

    def __call__(self, settings: "Settings", name: str, version: int) -> Serving: ...


class Watcher:
    """One look reads a few rows of the database. Only when they have changed is anything loaded, in the looking thread."""

    def __init__(
        self,
        runtime: "Runtime",
        load: VersionLoader,
        restart: Callable[[], None],
        recent: "Callable[[], Sequence[Query]]",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._runtime, self._load, self._restart, self._recent, self._clock = runtime, load, restart, recent, clock
        self._rollouts = Rollouts(runtime.registry)
        self._aside = Aside()
        self._tried: dict[object, float] = {}  # what was refused, and when it may be tried again
        self._withdrawn: dict[tuple[Kind, int, int], str] = {}  # by kind, version and start: whatever the database says
        self._complaint = ""

    def look(self) -> None:
        """Never raises for what a person can mend: it is logged, once, and what serves keeps serving."""
        try:
            self._look()
            self._complaint = ""
        except WatchNextError as error:
            if (complaint := str(error)) != self._complaint:
                log.error("the registry can't be followed; what serves keeps serving", reason=complaint)
            self._complaint = complaint

    def close(self) -> None:
        self._aside.close()

    def _look(self) -> None:
        slot, settings = self._runtime.slot, self._runtime.settings
        if slot.current is None:
            return self._begin_again()
        name = slot.current.name
        self._follow(self._runtime.registry.pointer(name))
        rollouts = self._rollouts.find(name)
        self._follow_shadow(rollouts.get("shadow"))
        self._follow_canary(rollouts.get("canary"))
        self._follow_arms(name)
        if slot.canary is not None and self._runtime.judges:
            self._judge(slot.canary, settings)

    def _judge(self, canary: Canary, settings: "Settings") -> None:
        elsewhere = reports_elsewhere(self._runtime, canary)
        if (verdict := canary.verdict(settings, elsewhere)) is not None:
            figures = dict(zip(("champion", "canary"), map(asdict, canary.figures(elsewhere)), strict=True))
            band, reason = verdict
            self._withdraw(canary.rollout, band, reason, **figures)

    def _begin_again(self) -> None:
        """Nothing is served. A new champion may be; so may one that could not be read the last time."""
        if self._runtime.feedback is None:  # the database could not be opened
            self._runtime.connect()
            return self._restart()
        try:
            pointer = self._runtime.registry.pointer(served_name(self._runtime.settings))
        except WatchNextError:
            return  # /readyz has the reason
        if pointer is not None and self._may_try(pointer):
            self._try_later(pointer)
            self._restart()

    def _follow(self, pointer: Champion | None) -> None:
        """Serve the champion."""
        slot, metrics = self._runtime.slot, self._runtime.metrics
        assert slot.current is not None
        if pointer is None or pointer.version == slot.current.version:
            if slot.refused is not None:
                slot.refused = None
                metrics.refused_version.set(0)
            return
        if not self._may_try(pointer):
            return
        started = perf_counter()
        serving = self._ready(slot.current.name, pointer.version)
        if isinstance(serving, str):
            self._try_later(pointer)
            slot.refused = f"the champion {pointer.version} is refused, {slot.current.version} keeps serving: {serving}"
            metrics.refused_version.set(pointer.version)
            metrics.bundles_refused.inc()
            log.error("champion refused", version=pointer.version, serving=slot.current.version, reason=serving)
            return
        before = slot.current.version
        self._swap(serving)
        seconds = perf_counter() - started
        metrics.model_version.set(serving.version)
        metrics.load_seconds.set(seconds)
        metrics.swaps.inc()
        log.info("swapped", bundle=serving.name, version=serving.version, before=before, seconds=round(seconds, 2))

    def _swap(self, serving: Serving) -> None:
        slot = self._runtime.slot
        slot.swap(serving)
        slot.refused = None
        self._runtime.metrics.refused_version.set(0)
        if (canary := slot.canary) is not None:  # held against the new champion from now on
            slot.canary = None
            if canary.rollout.version != serving.version:
                slot.canary = Canary.beside(serving, canary.serving, canary.rollout)
        if slot.shadow is not None:
            slot.shadow.begin_anew()
        settle()
        give_back()

    def _ready(self, name: str, version: int) -> Serving | str:
        """The version, loaded and warm, or why it can't be."""
        slot = self._runtime.slot
        running = [slot.current, *slot.others.values(), *([slot.canary.serving] if slot.canary else [])]
        for serving in running:
            if serving is not None and serving.version == version:
                return serving
        try:
            return self._aside.run(self._load_and_warm, name, version)
        except WatchNextError as error:
            return str(error)
        except Exception:
            log.exception("a bundle can't be loaded", version=version)
            return "it can't be loaded or fails to score; the log says why"

    def _load_and_warm(self, name: str, version: int) -> Serving:
        serving = self._load(self._runtime.settings, name, version)
        warm(serving)
        rehearse(serving, self._recent(), self._runtime)
        return serving

    def _follow_shadow(self, rollout: Rollout | None) -> None:
        slot = self._runtime.slot
        wanted = self._wanted(rollout)
        if slot.shadow is not None and (wanted is None or slot.shadow.rollout != wanted):
            slot.shadow.close()
            slot.shadow = None
            give_back()
        if wanted is None or slot.shadow is not None:
            return
        serving = self._ready(wanted.name, wanted.version)
        if isinstance(serving, str):
            return self._withdraw(wanted, "refused", serving)
        runtime = self._runtime
        score = score_again(runtime)
        slot.shadow = Shadow(wanted, serving, score, lambda: runtime.lane.idle, runtime.metrics)
        settle()
        log.info("shadow begins", version=wanted.version, share=wanted.share)

    def _follow_canary(self, rollout: Rollout | None) -> None:
        slot = self._runtime.slot
        wanted = self._wanted(rollout)
        if slot.canary is not None and wanted is not None and slot.canary.rollout.version == wanted.version:
            if slot.canary.rollout != wanted:
                slot.canary = replace(slot.canary, rollout=wanted)
            return
        if slot.canary is not None:
            log.info("canary ends", version=slot.canary.rollout.version)
            slot.canary = None
            give_back()
        self._runtime.metrics.canary_version.set(0)
        if wanted is None:
            return
        serving = self._ready(wanted.name, wanted.version)
        if isinstance(serving, str):
            return self._withdraw(wanted, "refused", serving)
        assert slot.current is not None
        slot.canary = Canary.beside(slot.current, serving, wanted)
        self._runtime.metrics.canary_version.set(wanted.version)
        settle()
        log.info("canary begins", version=wanted.version, share=wanted.share)

    def _follow_arms(self, name: str) -> None:
        """Keep the versions that arms of experiments name."""
        slot, named = self._runtime.slot, self._runtime.arms.versions
        kept = {version: serving for version, serving in slot.others.items() if version in named}
        for version in sorted(named - kept.keys()):
            arm = ("arm", version)
            if not self._may_try(arm):
                continue
            serving = self._ready(name, version)
            if isinstance(serving, str):
                self._try_later(arm)
                log.error("the bundle of an experiment's arm is refused", version=version, reason=serving)
            else:
                kept[version] = serving
                log.info("the bundle of an experiment's arm is loaded", version=version)
        if kept.keys() != slot.others.keys():
            slot.others = kept
            settle()
            give_back()

    def _wanted(self, rollout: Rollout | None) -> Rollout | None:
        """The trial that should run here. One that became the champion, or was withdrawn here, should not; where the
        database could not be told then, it is told now."""
        if rollout is None or not rollout.running:
            return None
        if (reason := self._withdrawn.get((rollout.kind, rollout.version, rollout.started_at))) is not None:
            self._rollouts.end(rollout.name, rollout.kind, "withdrawn", reason, only=rollout.version)
            return None
        current = self._runtime.slot.current
        if current is not None and rollout.version == current.version:
            self._rollouts.end(rollout.name, rollout.kind, "stopped", "it is the champion", only=rollout.version)
            return None
        return rollout

    def _withdraw(self, rollout: Rollout, name: str, reason: str, **figures: object) -> None:
        """First here, so that no more users get it; then in the database, which the other processes follow."""
        slot, kind = self._runtime.slot, rollout.kind
        self._withdrawn[kind, rollout.version, rollout.started_at] = reason
        if kind == "canary":
            slot.canary = None
            self._runtime.metrics.canary_version.set(0)
            self._runtime.metrics.canaries_withdrawn.labels(name).inc()
        log.error(f"{kind} withdrawn", version=rollout.version, band=name, reason=reason, **figures)
        self._rollouts.end(rollout.name, kind, "withdrawn", reason, only=rollout.version)
        give_back()

    def _may_try(self, what: object) -> bool:
        return self._clock() >= self._tried.get(what, 0.0)

    def _try_later(self, what: object) -> None:
        now = self._clock()
        self._tried = {other: time for other, time in self._tried.items() if time > now} | {what: now + AGAIN_AFTER}
