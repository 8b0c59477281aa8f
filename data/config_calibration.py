"""How predictions are calibrated (``[calibration]``)."""

from typing import Literal

from pydantic import Field

from data.frozen import Frozen


class CalibrationConfig(Frozen):
    """See docs/calibration.md. ``auto`` takes isotonic only where it beat Platt (the ratio) on the newest day."""

    method: Literal["auto", "platt", "isotonic", "ratio", "none"] = "auto"
    days: int = Field(7, ge=1)  # newest days, scored before they were trained on, that it is fitted on
    rows_per_day: int = Field(100_000, ge=1)  # of a day with more a sample is kept
