"""What a slate is worth to a user, in truth: the figure that a closed loop is judged by.

    worth(video)  = P(click | examined) * E[watch_time | click] / duration - DISMISSAL_COST * P(dismiss | examined)
    utility(slate) = sum over its places of P(examine | position, device) * worth(the video there)

So it is the expected number of videos watched, less a whole one for every dismissal. The cost is for the long term: a
user who dismisses comes back less (``data/simulator/audience.py``). A dismissal takes a tenth of the visits, of which a
fifth comes back every day: half a day's visits, which are worth about so much. Positions are examined the more the higher
they are, so the best slate of given candidates is that of those worth most, in this order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.simulator.entities import Floats, Ints
from data.simulator.world import World

DISMISSAL_COST = 1.0


def worth(world: World, users: Ints, videos: Ints, timestamps: Ints, devices: Ints) -> Floats:
    """What each video is worth to a user who examines it [n], all arguments [n]."""
    truth = world.truth(users, videos, timestamps, devices)
    return np.asarray(truth["preference"] - np.float32(DISMISSAL_COST) * truth["dismiss"], np.float32)


def utility(world: World, worths: Sequence[float] | NDArray[np.floating], device: int) -> float:
    """Of a slate whose places, from the top, are worth ``worths`` [S]."""
    places = np.arange(len(worths))
    return float(world.preferences.examination(places, np.full(len(places), device)) @ np.asarray(worths))
