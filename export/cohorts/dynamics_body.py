"""From blood to body: pressure, oedema, severity, and what an examiner would score, with what disturbs the score.

The severity is hidden and comes from blood alone. A score is f(severity) + g(confounders): sedation, alcohol, the time
after a seizure and the night change what is seen and nothing of the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.dynamics_admission import CLOT_H, Admission
from edgehem.regions import load_regions

Float = npt.NDArray[np.float64]
Hours = Float | float
"""Time since admission: one for all, or an array that fits that of the patients."""

SUMS = ("tissue", "ventricles", "damage", "left", "right", "language")
"""Weighted sums of the regions that all else is made from, in the order of :func:`weights`."""
DAMAGE = {
    "brainstem": 0.45, "thalamus": 0.13, "vermis": 0.1, "lentiform": 0.06, "caudate": 0.05, "ventricles": 0.06,
    "cerebellum": 0.05, "insula": 0.04, "temporal": 0.03, "frontal": 0.03, "parietal": 0.03, "occipital": 0.02,
}  # fmt: skip
"""Harm to consciousness for each mL. Ours: the order is that of the neuroanatomy of arousal, the figures are not."""
MOTOR = {"lentiform": 0.12, "thalamus": 0.1, "caudate": 0.06, "frontal": 0.04, "parietal": 0.04, "insula": 0.05}
"""Harm to the limbs of the other side for each mL. Ours."""
LANGUAGE = {"temporal": 0.05, "insula": 0.06, "frontal": 0.03, "parietal": 0.03, "lentiform": 0.03, "thalamus": 0.03}
"""Harm to language for each mL on the left. Ours; everybody's language is on the left here."""
SEVERITY = 1.7
"""Severity for each unit of log(1 + damage). Ours."""
OEDEMA = 0.8
"""Oedema at its fullest, mL for each mL of blood in tissue. Ours."""
OEDEMA_H = 24.0
"""Its time constant. Ours."""
ICP_REST = 9.0
"""Intracranial pressure without mass, mmHg. Ours, within the normal range."""
ICP_ROOM = 2.0
"""Mass over reserve at which pressure has risen by a factor of e. Ours; an exponential curve is Marmarou's."""
PRESSURE_STEP = 0.2
"""Log of the factor on growth for 10 mmHg of systolic pressure above 140. Ours, larger than trials of lowering suggest,
so that a cohort of some hundred can show it."""
SURGE_H = 30.0
"""Time constant with which the pressure's rise at onset fades. Ours."""
DRUG_DELAY_H = 0.25
"""From the order of an antihypertensive to its first effect. Ours."""
DRUG_H = 0.6
"""Time constant of its effect. Ours."""
REVERSAL_DELAY_H = 1.0
"""From the order of a reversal agent to its effect. Ours."""
REVERSAL_LEFT = 0.2
"""Share of the anticoagulant's effect that a reversal leaves. Ours."""
ALCOHOL, ALCOHOL_H = 1.0, 5.0
"""What drink adds to a score's depth at admission, and how fast it goes. Ours."""
POSTICTAL, POSTICTAL_H = 2.0, 2.5
"""What a seizure at onset adds to a score's depth, and how fast it goes. Ours."""
NIGHT = 0.25
"""What scoring at night adds to a score's depth. Ours."""


@cache
def weights() -> Float:
    """Of the regions in each of :data:`SUMS`: [R, 6]."""
    regions = load_regions()
    out = np.zeros((len(regions), len(SUMS)))
    for place, region in enumerate(regions.regions):
        bare = region.name.removeprefix(f"{region.side}_")
        left = region.side == "left"
        out[place] = [
            region.kind != "ventricle",
            region.kind == "ventricle",
            DAMAGE[bare],
            MOTOR.get(bare, 0.05 if bare == "brainstem" else 0.0) * (region.side != "right"),
            MOTOR.get(bare, 0.05 if bare == "brainstem" else 0.0) * (region.side != "left"),
            LANGUAGE.get(bare, 0.0) * left,
        ]
    return out


@dataclass(frozen=True, kw_only=True)
class Body:
    """The hidden state at some moments: float64 arrays of one shape.

    Parameters
    ----------
    tissue, ventricles : float64
        Blood in the tissue and in the ventricles, mL.
    oedema : float64
        mL.
    icp : float64
        Intracranial pressure, mmHg.
    severity : float64
        0 is awake; about 5 is deep coma.
    left, right : float64
        Harm to the limbs by the left and by the right side of the brain.
    language : float64
        Harm to language.
    """

    tissue: Float
    ventricles: Float
    oedema: Float
    icp: Float
    severity: Float
    left: Float
    right: Float
    language: Float


def body(people: Admission, sums: Float, hours: Hours) -> Body:
    """The state that blood makes.

    Parameters
    ----------
    people : Admission
        N patients.
    sums : float64 array [N, 6] or [N, T, 6]
        The sums :data:`SUMS` of their blood.
    hours : float or float64 array, broadcast against [N] or [N, T]
        Since admission.
    """
    tissue, ventricles, damage, left, right, language = np.moveaxis(sums, -1, 0)
    apart = (slice(None), *(None,) * (tissue.ndim - 1))
    oedema = OEDEMA * tissue * -np.expm1(-(hours + people.onset_h[apart]) / OEDEMA_H)
    mass = tissue + 1.3 * ventricles + oedema
    icp = np.minimum(ICP_REST * np.exp(mass / (ICP_ROOM * people.reserve[apart])), 80.0)
    severity = SEVERITY * np.log1p(damage) + 0.05 * np.maximum(icp - 20, 0) + people.fragile[apart]
    return Body(
        tissue=tissue, ventricles=ventricles, oedema=oedema, icp=icp, severity=np.maximum(severity, 0.0), left=left,
        right=right, language=language,
    )  # fmt: skip


def load(people: Admission, hours: Hours, treated_h: Float) -> Float:
    """Systolic pressure that the vessels bear, mmHg: usual, surge of onset, less what treatment takes off.

    Parameters
    ----------
    hours : float or float64 array [1, T]
    treated_h : float64 array [N]
        When treatment was ordered; infinite where it was not.
    """
    shape = (len(people), *(1,) * (np.ndim(hours) - 1))
    since = np.maximum(hours - treated_h.reshape(shape) - DRUG_DELAY_H, 0)
    drop = people.response.reshape(shape) * -np.expm1(-since / DRUG_H)
    return people.chronic.reshape(shape) + people.surge.reshape(shape) * np.exp(-hours / SURGE_H) - drop


def strain(pressure: Float) -> Float:
    """Factor of pressure on growth."""
    return np.asarray(np.exp(PRESSURE_STEP * np.maximum(pressure - 140, 0) / 10), np.float64)


def clotting(people: Admission, hours: Hours, reversed_h: Float) -> Float:
    """How fast the clot firms, 1/h: slowed by an anticoagulant, less so once it is reversed."""
    shape = (len(people), *(1,) * (np.ndim(hours) - 1))
    left = np.where(hours >= reversed_h.reshape(shape) + REVERSAL_DELAY_H, REVERSAL_LEFT, 1.0)
    return np.asarray(1 / (CLOT_H * (1 + people.hold.reshape(shape) * left)), np.float64)


def disturbance(people: Admission, hours: Hours, sedation: Float) -> Float:
    """g: what the confounders add to the depth that an examiner finds. Shapes broadcast against [N] or [N, T]."""
    shape = (len(people), *(1,) * (np.ndim(sedation) - 1))
    drink = ALCOHOL * people.alcohol.reshape(shape) * np.exp(-hours / ALCOHOL_H)
    after = POSTICTAL * people.seizure.reshape(shape) * np.exp(-(hours + people.onset_h.reshape(shape)) / POSTICTAL_H)
    return np.asarray(sedation + drink + after + NIGHT * night(people.clock_h.reshape(shape) + hours), np.float64)


def night(clock: Float) -> Float:
    """1 from 22 to 6 o'clock, else 0."""
    hour = clock % 24
    return np.where((hour >= 22) | (hour < 6), 1.0, 0.0)


def coma_scale(depth: Float, language: Float, error: Float) -> Float:
    """Eye, verbal and motor score of a depth: [...] to [..., 3]; whole numbers.

    Parameters
    ----------
    depth : float64 array [...]
        Severity and disturbance; negative counts as awake.
    language : float64 array [...]
    error : float64 array [..., 3]
        Of the examiner.
    """
    return np.clip(np.round(coma_line(depth, language) + error), 1, np.array([4, 5, 6]))


def coma_line(depth: Float, language: Float) -> Float:
    """What :func:`coma_scale` rounds: [...] to [..., 3]."""
    depth = np.maximum(depth, 0)
    parts = (
        4.1 - 0.75 * depth,
        5.1 - 0.95 * depth - 0.8 * np.log1p(language),
        6.1 - 0.95 * np.maximum(depth - 0.6, 0),
    )
    return np.stack(parts, axis=-1)


def stroke_scale(state: Body, disturbed: Float, error: Float) -> Float:
    """NIHSS, 0 to 42: limbs, language, consciousness; whole numbers."""
    return np.clip(np.round(stroke_line(state, disturbed) + error), 0, 42)


def stroke_line(state: Body, disturbed: Float) -> Float:
    """What :func:`stroke_scale` rounds."""
    limbs = 7.0 * np.log1p(state.left) + 7.0 * np.log1p(state.right)
    words = 3.5 * np.log1p(state.language)
    return np.asarray(1.5 + limbs + words + 2.2 * (state.severity + disturbed), np.float64)
