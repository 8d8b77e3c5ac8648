"""Leads of the 12-lead ECG: from a dipole on Frank's axes to potentials of electrodes, and from electrodes to leads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Order of the leads in every array and file."""
FREE = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""Leads that are measured; the other four follow from I and II."""
ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
"""Electrodes whose potentials differ; the right leg is the reference of the amplifier."""

DOWER = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)
"""Leads from Frank's X (to the left), Y (to the feet), Z (to the back), [8, 3]: Dower, Machado & Osborne,
Clin Cardiol 1980;3:87-95."""

MEASURED = np.zeros((8, 9))  # [lead of FREE, electrode]
MEASURED[0, [1, 0]] = 1, -1
MEASURED[1, [2, 0]] = 1, -1
MEASURED[2:, 3:] = np.eye(6)
MEASURED[2:, :3] = -1 / 3  # Wilson's central terminal

POTENTIALS = np.zeros((9, 8))  # [electrode, lead of FREE]
POTENTIALS[0, :2] = -1 / 3, -1 / 3
POTENTIALS[1, :2] = 2 / 3, -1 / 3
POTENTIALS[2, :2] = -1 / 3, 2 / 3
POTENTIALS[3:, 2:] = np.eye(6)
"""Potentials of the electrodes against Wilson's central terminal: the inverse of :data:`MEASURED`."""

PLACING_SHARED = 0.10
PLACING_OWN = 0.08
"""Spread of the chest electrodes' places, in distances between neighbours, shared by all and of each one. Ours."""
REACH = 0.08
"""Spread of the logarithm of how strongly an electrode sees the heart: the build of the chest. Ours."""


def projection(rng: np.random.Generator) -> Float:
    """A person's own matrix from dipole to measured leads, [8, 3]: Dower's, with electrodes where people place them.

    A chest electrode between two others sees what lies between what they see.
    """
    chest = DOWER[2:]
    at = np.clip(np.arange(6) + rng.normal(0, PLACING_SHARED) + rng.normal(0, PLACING_OWN, 6), 0, 5)
    moved = np.column_stack([np.interp(at, np.arange(6), chest[:, axis]) for axis in range(3)])
    reach = np.exp(rng.normal(0, REACH, 7))
    return np.vstack([DOWER[:2] * reach[0], moved * reach[1:, None]])


def twelve(measured: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """All leads in the order of :data:`LEADS`, from the measured ones in that of :data:`FREE`: [8, S] to [12, S].

    Einthoven's and Goldberger's relations hold to the last bit where I and II are even numbers.
    """
    one, two = measured[0], measured[1]
    limb = np.stack([one, two, two - one, -(one + two) // 2, (2 * one - two) // 2, (2 * two - one) // 2])
    return np.concatenate([limb, measured[2:]])
