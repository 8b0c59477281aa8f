"""How the objectives' losses and gradients are balanced in a training step: a file per method."""

from collections.abc import Sequence

from data import config_balancing as configured
from data.config import Objective
from models.balancing.base import Balancing
from models.balancing.cagrad import ConflictAverse
from models.balancing.dwa import DynamicWeightAverage
from models.balancing.famo import FastAdaptive
from models.balancing.gradnorm import GradNorm
from models.balancing.pcgrad import ProjectingConflicts
from models.balancing.uncertainty import UncertaintyWeighting


def build_balancing(config: configured.Balancing, objectives: Sequence[Objective]) -> Balancing:
    """The method that the configuration names, at its start."""
    count = len(objectives)
    match config:
        case configured.Uncertainty():
            return UncertaintyWeighting(objectives, config.rate)
        case configured.GradNorm():
            return GradNorm(count, config.alpha, config.rate)
        case configured.DynamicAverage():
            return DynamicWeightAverage(count, config.temperature, config.period)
        case configured.PCGrad():
            return ProjectingConflicts()
        case configured.CAGrad():
            return ConflictAverse(config.c)
        case configured.Famo():
            return FastAdaptive(count, config.rate, config.decay)
    return Balancing()
