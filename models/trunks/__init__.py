"""Where parameters are shared between objectives, and where not: one trunk a file, behind one interface."""

from collections.abc import Sequence

from data.config import Objective
from data.config_trunk import TrunkConfig
from models.learnt import Columns
from models.trunks.base import Trunk, TrunkOutput
from models.trunks.conditioned import Conditioned
from models.trunks.cross_stitch import CrossStitch
from models.trunks.home import HoME
from models.trunks.mmoe import MMoE
from models.trunks.ple import PLE
from models.trunks.separate import Separate
from models.trunks.shared_bottom import SharedBottom
from models.trunks.soft_sharing import SoftSharing
from models.trunks.stem import STEM

__all__ = ["TRUNKS", "Trunk", "TrunkOutput", "build_trunk", "roles_of"]

TRUNKS: dict[str, type[Trunk]] = {
    "separate": Separate,
    "shared_bottom": SharedBottom,
    "conditioned": Conditioned,
    "soft_sharing": SoftSharing,
    "cross_stitch": CrossStitch,
    "mmoe": MMoE,
    "ple": PLE,
    "stem": STEM,
    "home": HoME,
}


def build_trunk(
    settings: TrunkConfig,
    objectives: Sequence[Objective],
    inputs: int,
    dropout: float,
    seed: int,
    columns: Columns | None = None,
) -> Trunk:
    """The trunk of a configuration, built for inputs of D = ``inputs`` columns, of which ``columns`` are learnt."""
    trunk = TRUNKS[settings.kind](settings, objectives, dropout, seed, columns)
    trunk.build((None, inputs))
    return trunk


def roles_of(settings: TrunkConfig, objectives: Sequence[Objective]) -> tuple[str | None, ...]:
    """The sets of embeddings that the trunk reads: see :meth:`Trunk.roles`."""
    return TRUNKS[settings.kind].roles(settings, [objective.name for objective in objectives])
