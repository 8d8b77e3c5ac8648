"""People with an occluded artery, and the two hospitals they come to. All numbers are ours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import BLOCK, Float, sigmoid


@dataclass(frozen=True, kw_only=True)
class Place:
    """What differs between the two hospitals; all numbers ours.

    Parameters
    ----------
    age : float
        Mean, years.
    minutes : float
        Median from onset to CT.
    to_reperfusion : float
        Median from CT to reperfusion, minutes.
    lysed : float
        Share of those who may have lysis that get it.
    found : float
        Added to the logit of hemorrhage: who is scanned again earlier and with more care has more of it.
    thickness_mm : tuple of float
        Slices, each as likely as the next.
    kernels : tuple of str
        Likewise.
    """

    age: float
    minutes: float
    to_reperfusion: float
    lysed: float
    found: float
    thickness_mm: tuple[float, ...]
    kernels: tuple[str, ...]


PLACES = (
    Place(
        age=71,
        minutes=150,
        to_reperfusion=95,
        lysed=0.85,
        found=0.0,
        thickness_mm=(5.0, 4.5),
        kernels=("soft", "standard"),
    ),
    Place(
        age=75,
        minutes=235,
        to_reperfusion=120,
        lysed=0.60,
        found=0.3,
        thickness_mm=(3.0, 2.5),
        kernels=("standard", "fine"),
    ),
)
"""The usual hospital, and one that patients are brought to from others, later."""

WAKE_UP = 0.16
"""Share whose onset nobody saw: `onset_to_ct_min` is empty. Ours."""


@dataclass(frozen=True, kw_only=True)
class Brain:
    """What the CT shows of a person's brain before the stroke, and where the clot is; arrays [N].

    Parameters
    ----------
    occlusion : int64 array
        Index into :data:`edgehem.export.cohorts.post_intervention_tissue.OCCLUSIONS`.
    left : float64 array
        1 where the left hemisphere is struck.
    leukoaraiosis : float64 array
        0 to 3, as by Fazekas.
    old_infarcts : float64 array
        0 to 2.
    """

    occlusion: npt.NDArray[np.int64]
    left: Float
    leukoaraiosis: Float
    old_infarcts: Float


def draw_people(rng: np.random.Generator, place: Place) -> tuple[dict[str, Float], Brain]:
    """Draw :data:`BLOCK` people: their inputs but for the score, each rounded as the table has it, and their brains."""
    age = np.clip(np.rint(rng.normal(place.age, 12, BLOCK)), 25, 98)
    old = (age - 70) / 12

    def some(logit: Float | float) -> Float:
        return np.asarray(rng.random(BLOCK) < sigmoid(np.broadcast_to(logit, BLOCK)), np.float64)

    hypertension = some(0.6 + 0.4 * old)
    diabetes = some(-1.3 + 0.5 * hypertension)
    fibrillation = some(-0.8 + 0.6 * old)
    anticoagulant = np.where(fibrillation == 1, some(-0.6), some(-3.2))
    vessels = 0.8 * old + 0.4 * hypertension + rng.logistic(0, 1, BLOCK)
    infarcts = np.searchsorted((0.9, 2.6), 0.4 * old + rng.logistic(0, 1, BLOCK)).astype(np.float64)
    glucose = np.exp(np.log(np.where(diabetes == 1, 9.2, 6.5)) + 0.22 * rng.standard_normal(BLOCK))
    minutes = place.minutes * np.exp(0.6 * rng.standard_normal(BLOCK))
    person: dict[str, Float] = {
        "age": age,
        "female": some(0.2 * old),
        "onset_to_ct_min": np.clip(np.rint(minutes), 20, 1440),
        "glucose": np.round(np.clip(glucose, 2.5, 30), 1),
        "sbp": np.clip(np.rint(rng.normal(146, 21, BLOCK) + 9 * hypertension), 80, 240),
        "atrial_fibrillation": fibrillation,
        "hypertension": hypertension,
        "diabetes": diabetes,
        "anticoagulant": anticoagulant,
        "antiplatelet": np.where(anticoagulant == 1, some(-2.5), some(-0.7 + 0.4 * old)),
        # An infarct in the CT is not always one that somebody remembers.
        "prior_stroke": np.where(infarcts > 0, some(0.3), some(-3.0)),
    }
    brain = Brain(
        occlusion=np.searchsorted(np.array([0.22, 0.77]), rng.random(BLOCK), "right"),
        left=some(0.0),
        leukoaraiosis=np.searchsorted((-0.8, 0.9, 2.6), vessels).astype(np.float64),
        old_infarcts=infarcts,
    )
    return person, brain
