"""Hematoma by cerebral venous thrombosis or by another cause (system 3): the cohort.

Counts, the two centres and the order of the published figures follow Wu et al., Sci Rep 2025,
doi 10.1038/s41598-025-31206-8. What is planted is ours (``docs/cohorts_stroke.md``). The label is a cause, so that
features follow from it; the chance is the posterior of the cause, exactly, given all features as drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import BLOCK, Cohort, Column, Float, Label, Part, Patients, Values, reader_noise, tidy
from edgehem.export.cohorts.cvt_causes import CAUSES, LOBES, SITES, network
from edgehem.export.cohorts.cvt_factors import IMAGE, Group, Index, Network
from edgehem.export.cohorts.cvt_images import write_images

ADMITTED: Group = "clinical"
"""Group of the features that the training table has as columns."""
SLURRED_GCS = 13.0
"""Below this Glasgow Coma Scale few can say since when their head aches, ours."""
UNASKED = {"few": 0.60, "most": 0.12}
"""Share without a headache duration below and from :data:`SLURRED_GCS`, ours."""
UNORDERED = {"young": 0.25, "old": 0.55, "years": 55.0}
"""Share without a D-dimer: who is young is asked for it more often. Ours."""
UNTOLD = (0.25, 0.45)
"""Share of women between 16 and 50 years whose contraceptives nobody wrote down, in the two centres. Ours."""

SCANNERS: tuple[tuple[tuple[float, ...], tuple[str, ...]], ...] = (
    ((5.0, 4.5), ("soft", "standard")),
    ((3.0, 2.5), ("standard", "fine")),
)
"""Slice thicknesses (mm) and kernels of the two centres, each as likely as the next. Ours: the external centre has
thinner slices, and with them more noise, and sharper kernels."""
NOISE_HU = (2.2, 5.5)
"""Range of the phantom's scanners' noise in slices of 5 mm (:func:`edgehem.phantom.cases.draw_scan`): what a reader's
standard deviation holds of it."""
BLUR_MM, BLUR_PER_MM = 0.5, 0.7
"""What a scanner averages over, mm: in the plane, and for each mm of slice thickness. Mottle keeps its grain's share of
the grain and both. Ours; phantoms of 9 mm grain keep 0.69 in slices of 5 mm and 0.80 in slices of 2.5 mm."""

READER = 41
"""Purpose of the reader's random numbers."""
MISREAD_LOBE = 0.06
"""Lobar hematomas whose lobe a reader guesses, ours."""
SEEN = {
    "dense_sinus": (0.80, 0.04),
    "convexity_blood": (0.85, 0.03),
    "ventricular_blood": (0.96, 0.02),
    "several_hematomas": (0.92, 0.02),
}
"""A simple reader's sensitivity and rate of false alarms, ours."""
READING = {"hematoma_hu": 1.0, "sd_hu": 0.5, "irregularity": 0.09, "oedema_mm": 1.6, "log_volume": 0.10}
"""Standard deviation of a reader's error, in the feature's unit, ours."""


class Cvt(Cohort):
    """Patients with an intraparenchymal hematoma on plain CT: is it a venous thrombosis?

    The usual place is Wu et al.'s centre 1; the other one is their centre 2, with its own prevalence, mix of other
    causes, scanners and laboratory.
    """

    name: ClassVar[str] = "cvt"
    version: ClassVar[str] = "1"
    what: ClassVar[str] = "intraparenchymal hematoma on plain CT: cerebral venous thrombosis or another cause"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="age", kind="count", what="age", unit="a", low=16, high=95),
        Column(name="female", kind="binary", what="female sex"),
        Column(name="epilepsy", kind="binary", what="epileptic seizure at onset"),
        Column(name="gcs", kind="count", what="Glasgow Coma Scale at admission", low=3, high=15),
        Column(
            name="headache_days", kind="real", what="headache before admission", unit="d", low=0.1, high=30, digits=1
        ),
        Column(name="hypertension", kind="binary", what="known arterial hypertension"),
        Column(name="anticoagulant", kind="binary", what="takes an anticoagulant"),
        Column(name="pregnancy", kind="binary", what="pregnancy or puerperium"),
        Column(name="contraceptives", kind="binary", what="takes oral contraceptives"),
        Column(name="d_dimer", kind="real", what="D-dimer", unit="mg/L FEU", low=0.1, high=20, digits=1),
        Column(name="hematocrit", kind="count", what="hematocrit", unit="%", low=22, high=62),
    )
    labels: ClassVar[tuple[Label, ...]] = (
        Label(name="cvt", what="the hematoma was caused by a cerebral venous thrombosis"),
    )
    train: ClassVar[int] = 192
    test: ClassVar[int] = 83
    paths: ClassVar[tuple[str, ...]] = ("ct", "mask")
    parts: ClassVar[tuple[Part, ...]] = tuple(
        Part(label="cvt", truth=f"chance_{name}", what=what)
        for name, what in (
            ("clinical", "clinical features, none lost"),
            ("table", "clinical features as the table has them"),
            ("image", "what is planted in the image"),
            ("image_epilepsy", "what is planted in the image, and epilepsy"),
            ("image_head", "the image with the age and sex that its head has"),
            ("texture_location", "texture and location"),
        )
    )

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """Draw causes, then every feature of them."""
        centre = int(shifted)
        net = network(centre)
        cause = np.asarray(
            np.minimum(np.searchsorted(np.cumsum(net.prior), rng.random(BLOCK), "right"), len(CAUSES) - 1), np.int64
        )
        drawn = net.draw(rng, cause)
        values = {name: net.values(drawn, name) for name in net.names(ADMITTED, *IMAGE)}
        lost = _lost(rng, values, centre)
        inputs = tidy(
            self.columns,
            {c.name: np.where(lost.get(c.name, False), np.nan, values[c.name]) for c in self.columns},
        )
        thickness, kernels = SCANNERS[centre]
        truth: dict[str, Values] = {"cause": np.array(CAUSES)[cause], "centre": np.full(BLOCK, 1 + centre)}
        truth |= {name: values[name] for name in net.names(*IMAGE)}
        truth |= {f"{name}_before_loss": values[name] for name in lost}
        truth |= {"age_years": values["age"], "sex": np.where(values["female"] == 1, "F", "M")}
        truth |= {"thickness_mm": rng.choice(thickness, BLOCK), "kernel": rng.choice(kernels, BLOCK)}
        truth |= {f"chance_{name}": chance for name, chance in ceilings(net, drawn, lost).items()}
        return Patients(
            inputs=inputs,
            labels={"cvt": (cause == 0).astype(np.int64)},
            chance={"cvt": _chance(net, drawn, net.names(ADMITTED, *IMAGE))},
            truth=truth,
        )

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """What a simple reader measures in the CT and its mask.

        Standard deviations hold the scanner's noise and lose mottle to thick slices, as they would in the image, so
        that a threshold learnt at one centre is wrong at the other. Findings are missed and imagined at the rates of
        :data:`SEEN`.
        """
        t = patients.truth
        error = reader_noise(patients, READER, 12)
        kept = t["mottle_mm"] / (t["mottle_mm"] + BLUR_MM + BLUR_PER_MM * t["thickness_mm"])
        quiet, loud = NOISE_HU
        noise = np.clip((quiet + loud) / 2 + (loud - quiet) / 4 * error[:, 11], quiet, loud)
        spread = np.hypot(t["mottle_hu"] * kept, noise * np.sqrt(5 / t["thickness_mm"]))
        site = _misread(t["site"], error[:, 5], error[:, 6])
        read = {
            "ct_volume_ml": t["volume_ml"] * np.exp(READING["log_volume"] * error[:, 0]),
            "ct_mean_hu": t["hematoma_hu"] + READING["hematoma_hu"] * error[:, 1],
            "ct_sd_hu": np.maximum(spread + READING["sd_hu"] * error[:, 2], 0.1),
            "ct_irregularity": t["irregularity"] + READING["irregularity"] * error[:, 3],
            "ct_oedema_mm": np.maximum(t["oedema_mm"] + READING["oedema_mm"] * error[:, 4], 0),
        }
        read |= {f"ct_site_{name}": (site == name).astype(np.float64) for name in SITES}
        found = {
            "dense_sinus": t["dense_sinus"] != "none",
            "convexity_blood": t["convexity_blood"] == 1,
            "ventricular_blood": t["ventricular_blood"] == 1,
            "several_hematomas": t["hematomas"] > 1,
        }
        for number, (name, there) in enumerate(found.items()):
            sensitivity, alarm = SEEN[name]
            level = np.where(there, _below(sensitivity), _below(alarm))
            read[f"ct_{name}"] = (error[:, 7 + number] < level).astype(np.float64)
        return {name: np.asarray(np.round(values, 3), np.float64) for name, values in read.items()}

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write the phantom CT with these parameters, and the mask of its intraparenchymal hematomas."""
        return write_images({name: values[row] for name, values in patients.truth.items()}, out, seed)


def ceilings(net: Network, drawn: Mapping[str, Index], lost: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, Float]:
    """Posterior of a thrombosis given a part of what was drawn, float64 [N] by name.

    ``clinical``: all clinical features. ``table``: the same without what was lost. ``image``: all features of the CT,
    as drawn (the scanner's noise can only take from it). ``image_epilepsy``: those and epilepsy, the ingredients of the
    published nomogram. ``image_head``: those and age and sex, which the phantom's head shows and its files name: the
    bound for who reads the files. ``texture_location``: those of the CT without shape.
    """
    clinical, image = net.names(ADMITTED), net.names(*IMAGE)
    return {
        "clinical": _chance(net, drawn, clinical),
        "table": _chance(net, drawn, clinical, lost),
        "image": _chance(net, drawn, image),
        "image_epilepsy": _chance(net, drawn, (*image, "epilepsy")),
        "image_head": _chance(net, drawn, (*image, "age", "female")),
        "texture_location": _chance(net, drawn, net.names("texture", "location")),
    }


def _chance(
    net: Network,
    drawn: Mapping[str, Index],
    seen: Collection[str],
    lost: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> Float:
    return np.asarray(net.posterior(drawn, seen, lost=lost)[:, 0], np.float64)


def _lost(rng: np.random.Generator, values: Mapping[str, Values], centre: int) -> dict[str, npt.NDArray[np.bool_]]:
    """What was not measured, for reasons that are all in the table: bool [N] by column."""
    slurred = np.where(values["gcs"] < SLURRED_GCS, UNASKED["few"], UNASKED["most"])
    unordered = np.where(values["age"] < UNORDERED["years"], UNORDERED["young"], UNORDERED["old"])
    asked = (values["female"] == 1) & (values["age"] < 50)
    return {
        "headache_days": rng.random(BLOCK) < slurred,
        "d_dimer": rng.random(BLOCK) < unordered,
        "contraceptives": asked & (rng.random(BLOCK) < UNTOLD[centre]),
    }


def _misread(site: Values, slip: Float, which: Float) -> Values:
    """Sites as a reader names them: a lobe may be a guess."""
    quartiles = [_below(share) for share in (0.25, 0.5, 0.75)]
    other = np.array(LOBES)[np.searchsorted(quartiles, which)]
    return np.where(np.isin(site, LOBES) & (slip < _below(MISREAD_LOBE)), other, site)


def _below(share: float) -> float:
    """What this share of standard normal numbers lies below."""
    return NormalDist().inv_cdf(share)
