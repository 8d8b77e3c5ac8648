"""Inputs of the cohort of thrombolysis: what is known when the decision is made, and nothing that comes later."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgehem.export.cohorts.core import Column, Float, Values

AGENTS = ("alteplase", "urokinase", "tenecteplase")
DOSES = ("full", "reduced")
ANTICOAGULANTS = ("none", "heparin", "lmwh", "vka", "doac")
"""In use when the decision is made; `heparin` is unfractionated."""


def _yes(name: str, what: str) -> Column:
    return Column(name=name, kind="binary", what=what)


COLUMNS = (
    Column(name="age", kind="count", what="Age.", unit="a", low=18, high=95),
    _yes("male", "Male sex."),
    Column(name="weight", kind="real", what="Body weight; a few are pounds.", unit="kg", low=30, high=400),
    Column(name="heart_rate", kind="count", what="Heart rate on arrival.", unit="1/min", low=35, high=200),
    Column(name="sbp", kind="count", what="Systolic blood pressure.", unit="mm[Hg]", low=50, high=230),
    Column(name="respiratory_rate", kind="count", what="Respiratory rate.", unit="1/min", low=8, high=50),
    Column(name="temperature", kind="real", what="Temperature; a few are Fahrenheit.", unit="Cel", low=32, high=108),
    Column(name="spo2", kind="count", what="Oxygen saturation, as found.", unit="%", low=55, high=100),
    _yes("altered_mentation", "Disorientation, lethargy, stupor or coma."),
    _yes("cancer", "Active cancer, as coded."),
    _yes("heart_failure", "Chronic heart failure, as coded."),
    _yes("chronic_lung_disease", "Chronic lung disease, as coded."),
    _yes("recent_surgery", "Major surgery or trauma within three weeks."),
    _yes("recent_major_bleeding", "Major bleeding within a month, as coded."),
    _yes("prior_stroke", "Any earlier stroke, as coded."),
    _yes("syncope", "Syncope at presentation."),
    Column(name="hemoglobin", kind="real", what="Hemoglobin; a few are g/L.", unit="g/dL", low=4, high=200),
    Column(name="platelets", kind="count", what="Platelets.", unit="10*9/L", low=10, high=900),
    Column(name="creatinine", kind="real", what="Creatinine; a few are mg/dL.", unit="umol/L", low=0.3, high=1200),
    Column(name="bilirubin", kind="real", what="Total bilirubin.", unit="umol/L", low=2, high=300),
    Column(
        name="troponin", kind="real", what="Cardiac troponin, by the place's assay.", unit="ng/L", low=1, high=50000
    ),
    Column(name="nt_probnp", kind="count", what="NT-proBNP.", unit="ng/L", low=10, high=70000),
    Column(name="lactate", kind="real", what="Lactate.", unit="mmol/L", low=0.3, high=20),
    Column(name="d_dimer", kind="real", what="D-dimer (FEU).", unit="mg/L", low=0.2, high=80, digits=2),
    Column(name="inr", kind="real", what="INR.", low=0.8, high=8, digits=2),
    Column(
        name="rv_lv_ratio",
        kind="real",
        what="RV/LV diameter by CT or echo.",
        low=0.5,
        high=2.5,
        digits=2,
        source="image",
    ),
    Column(name="lysis_agent", kind="category", what="Agent that is to be given.", values=AGENTS),
    Column(name="lysis_dose", kind="category", what="Dose class that is to be given.", values=DOSES),
    Column(name="anticoagulant", kind="category", what="Anticoagulant in use.", values=ANTICOAGULANTS),
    _yes("antiplatelet", "Antiplatelet drug in use."),
    *(
        Column(
            name=f"contraindication_{kind}", kind="binary", what="To thrombolysis, by rule from other columns.",
            report_only=True,
        )
        for kind in ("absolute", "relative")
    ),
)  # fmt: skip

LOW_PLATELETS = 50.0
HIGH_INR = 3.0
"""Beyond these a bleeding diathesis is assumed. Ours."""
HIGH_SBP = 180.0
"""Refractory hypertension, mmHg: Konstantinides et al., ESC guideline 2019, Eur Heart J 2020;41:543-603."""


def contraindications(recorded: Mapping[str, Values]) -> dict[str, Float]:
    """Contraindications that the record tells of, 0 or 1: a rule, apart from any risk.

    After the list of the ESC's guideline of 2019, as far as these columns go, and simplified by us: absolute are recent
    surgery or trauma, recent major bleeding, and a bleeding diathesis (platelets below 50, or INR above 3); relative
    are an earlier stroke (its kind and time are not recorded), oral anticoagulation, and a pressure above 180 mmHg.

    Parameters
    ----------
    recorded : mapping of column to array [N]
        As in the table; what is missing counts as absent.
    """
    absolute = (
        (recorded["recent_surgery"] == 1)
        | (recorded["recent_major_bleeding"] == 1)
        | (recorded["platelets"] < LOW_PLATELETS)
        | (recorded["inr"] > HIGH_INR)
    )
    relative = (
        (recorded["prior_stroke"] == 1)
        | np.isin(recorded["anticoagulant"], ("vka", "doac"))
        | (recorded["sbp"] > HIGH_SBP)
    )
    return {
        "contraindication_absolute": absolute.astype(np.float64),
        "contraindication_relative": relative.astype(np.float64),
    }
