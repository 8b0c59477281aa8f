"""Ranking weights in a file of their own, for the configuration's [ranking] section and for an experiment's arm.

combine = "weighted_product"
[weights]                    # all that an arm needs
like = 2.0
[reference_means]
like = 0.05
[about]                      # where they come from; not read
"""

import tomllib
from pathlib import Path
from typing import Any

from data.errors import ConfigError

KEYS = ("combine", "weights", "reference_means")
ABOUT = "about"


def read_weights(path: Path) -> dict[str, Any]:
    """What the file says, as the keys of [ranking]; a relative path is taken from where the caller stands.

    Raises:
        ConfigError: it can't be read, or has other keys.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    values.pop(ABOUT, None)
    if "weights" not in values or not set(values) <= set(KEYS):
        got = ", ".join(values) or "nothing"
        beside = f"combine, [reference_means] or [{ABOUT}]"
        raise ConfigError(f"{path} should have a table [weights], and {beside} beside it, got {got}")
    return values
