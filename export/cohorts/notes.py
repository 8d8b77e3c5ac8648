"""Admission notes: short clinical text made from what is known at admission, with the mess that real notes have.

Abbreviations, negations, hedges, misspellings, sections in another order, and text that was copied forward and is
wrong. A note holds nothing that is known only later: no treatment limits, no course. Names and dates do not occur. All
phrases are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a note may tell of a patient, as known at admission.

    Parameters
    ----------
    age : int
    male, found_down, seizure, alcohol, vomiting, hypertension, diabetes, antiplatelet, swirl : bool
    onset_h : float
        From onset to admission.
    agent : str
        ``none``, ``vka`` or ``doac``.
    dose_h : float
        Since its last dose.
    premorbid : int
        Modified Rankin scale before, 0 to 4.
    where : str
        Region, in words.
    ivh_ml, sbp, gcs : float
        As read at admission.
    """

    age: int
    male: bool
    onset_h: float
    found_down: bool
    seizure: bool
    alcohol: bool
    vomiting: bool
    hypertension: bool
    diabetes: bool
    antiplatelet: bool
    agent: str
    dose_h: float
    premorbid: int
    where: str
    ivh_ml: float
    swirl: bool
    sbp: float
    gcs: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """A site's habits.

    Parameters
    ----------
    headings : tuple of str
        Of history, background, examination, imaging and plan.
    order : tuple of int
        In which these come.
    bullets : bool
        A line for each sentence.
    short : tuple of pairs
        Words, and what stands for them.
    shorten : float
        Share of these words that a note shortens.
    misspelt : float
        Share of longer words.
    silence : float
        Share of findings that are left unsaid.
    copied : float
        Share of notes with a sentence copied from an older one that no longer holds.
    """

    headings: tuple[str, str, str, str, str]
    order: tuple[int, ...]
    bullets: bool
    short: tuple[tuple[str, str], ...]
    shorten: float
    misspelt: float
    silence: float
    copied: float


STYLES = (
    Style(
        headings=("History", "Background", "Examination", "Imaging", "Plan"), order=(0, 1, 2, 3, 4), bullets=False,
        short=(("Patient", "Pt"), ("years old", "yo"), ("blood pressure", "BP"), ("history of", "h/o")), shorten=0.4,
        misspelt=0.01, silence=0.1, copied=0.06,
    ),
    Style(
        headings=("HPI", "PMH", "O/E", "CT", "A/P"), order=(0, 2, 3, 1, 4), bullets=False,
        short=(
            ("Patient", "Pt"), ("years old", "yo"), ("blood pressure", "BP"), ("history of", "h/o"), ("seizure", "sz"),
            ("alcohol", "EtOH"), ("hypertension", "HTN"), ("diabetes", "DM"), ("with", "w/"), ("without", "w/o"),
            ("hours", "h"), ("left", "L"), ("right", "R"), ("intraventricular hemorrhage", "IVH"),
        ),
        shorten=0.8, misspelt=0.025, silence=0.2, copied=0.12,
    ),
    Style(
        headings=("PRESENTING COMPLAINT", "PREVIOUSLY", "STATUS", "RADIOLOGY", "TO DO"), order=(3, 0, 2, 1, 4),
        bullets=True,
        short=(
            ("Patient", "Pat."), ("years old", "y"), ("seizure", "fit"), ("alcohol", "ETOH"),
            ("intraventricular hemorrhage", "IVH"), ("hours", "hrs"), ("history of", "known"),
        ),
        shorten=0.6, misspelt=0.02, silence=0.25, copied=0.1,
    ),
)  # fmt: skip
"""Two habits of the usual place, and that of the other one. All figures are ours."""

_WORDS = {word: re.compile(rf"\b{word}\b") for habit in STYLES for word, _ in habit.short}
_SPACE = re.compile(r"(\s)")

BEFORE = (
    ("Fully independent before.", "Lives alone, drives, manages everything.", "No limits before this."),
    ("Independent before, minor complaints only.", "Manages own affairs, slowed down a little."),
    ("Walks with a stick, needs help with the shopping.", "Uses a frame, otherwise looks after self."),
    ("Needs help with dressing and washing.", "Carers twice a day, walks with help."),
    ("Nursing home, needs full care.", "Bedbound, needs full care."),
)
"""Function before, by modified Rankin scale."""
AGENT_WORDS = {"vka": ("warfarin", "a vitamin K antagonist"), "doac": ("apixaban", "rivaroxaban", "a DOAC")}
"""Substances in the words that notes use."""
PLAN = (
    "Blood pressure target below 140.", "Admit to stroke unit.", "Neurosurgery informed.", "Repeat CT.",
    "Hourly neuro obs.", "Bloods sent.", "Head of bed up.", "Nil by mouth until swallow test.",
)  # fmt: skip
"""Sentences that say nothing of the patient."""


def write_note(facts: Facts, style: int, seed: int) -> str:
    """A note in a style: the same text for the same facts, style and seed."""
    habit = STYLES[style]
    rng = np.random.default_rng([seed, 811])
    toss = iter(rng.random(96).tolist())
    sections = (
        _history(facts, habit, toss), _background(facts, habit, toss), _examination(facts, toss),
        _imaging(facts, habit, toss), [_pick(PLAN, toss) for _ in range(2)],
    )  # fmt: skip
    order = habit.order if next(toss) < 0.85 else tuple(reversed(habit.order))
    parts = []
    for number in order:
        said = [sentence for sentence in sections[number] if sentence]
        if said:
            text = "\n".join(f"- {sentence}" for sentence in said) if habit.bullets else " ".join(said)
            parts.append(f"{habit.headings[number]}:\n{text}")
    text = "\n".join(parts)
    for word, short in habit.short:
        if next(toss) < habit.shorten:
            text = _WORDS[word].sub(short, text)
    return _misspell(text, habit.misspelt, rng) + "\n"


def _pick(variants: tuple[str, ...], toss: Iterator[float]) -> str:
    return variants[int(next(toss) * len(variants))]


def _say(
    holds: bool, yes: tuple[str, ...], no: tuple[str, ...], unsure: str, habit: Style, toss: Iterator[float]
) -> str:
    """A finding: said, denied, left open or left out. What is there is left out less often than what is not."""
    silent, open_, variant = next(toss), next(toss), next(toss)
    if silent < habit.silence + 0.35 * (not holds):
        return ""
    if open_ < (0.12 if holds else 0.04):
        return unsure
    variants = yes if holds else no
    return variants[int(variant * len(variants))]


def _history(facts: Facts, habit: Style, toss: Iterator[float]) -> list[str]:
    who = f"Patient is a {'man' if facts.male else 'woman'}, {facts.age} years old, with sudden weakness."
    if facts.found_down:
        onset = _pick(("Found down at home, last seen well unknown.", "Found on the floor, onset unknown."), toss)
    else:
        ago = max(round(facts.onset_h), 1)
        onset = _pick(
            (f"Onset witnessed about {ago} hours ago.", f"Symptoms began {ago} hours before arrival, seen by family."),
            toss,
        )
    return [
        who,
        onset,
        _say(
            facts.seizure,
            ("Witnessed generalised seizure at onset.", "Had a seizure before the ambulance came."),
            ("No seizure seen.", "Bystanders deny seizure activity."),
            "Possible seizure at onset, history unclear.", habit, toss,
        ),
        _say(
            facts.vomiting,
            ("Vomited twice.", "Vomiting on the way in."),
            ("No vomiting.", "Denies vomiting."),
            "Possible vomiting per crew.", habit, toss,
        ),
        _say(
            facts.alcohol,
            ("Smells of alcohol.", "Intoxicated, heavy alcohol use tonight."),
            ("No alcohol today.", "Denies alcohol use."),
            "Possible alcohol intake, no level yet.", habit, toss,
        ),
    ]  # fmt: skip


def _background(facts: Facts, habit: Style, toss: Iterator[float]) -> list[str]:
    known = [
        word
        for holds, word in ((facts.hypertension, "hypertension"), (facts.diabetes, "diabetes"))
        if holds and next(toss) >= habit.silence / 2
    ]
    out = [f"Has a history of {' and '.join(known)}." if known else "No relevant history."]
    out.append(_pick(BEFORE[facts.premorbid], toss) if next(toss) >= habit.silence / 2 else "")
    copied, telling, which = next(toss), next(toss), next(toss)
    if facts.agent != "none":
        words = AGENT_WORDS[facts.agent]
        word = words[int(which * len(words))]
        dose = f"last dose {round(facts.dose_h)} hours ago" if telling < 0.75 else "last dose not known"
        out.append(f"Takes {word}, {dose}.")
        if copied < habit.copied:
            out.append("Medication list from last visit: no anticoagulants.")
    elif copied < habit.copied:
        out.append("Medication list from last visit: takes warfarin, since stopped.")
    elif telling < 0.6:
        out.append("No anticoagulants.")
    if facts.antiplatelet and next(toss) >= habit.silence:
        out.append("Aspirin daily.")
    return out


def _examination(facts: Facts, toss: Iterator[float]) -> list[str]:
    before = ["Ambulance sheet: GCS 15."] if next(toss) < 0.1 else []
    now = f"GCS {facts.gcs:.0f} on arrival." if np.isfinite(facts.gcs) else "GCS not testable, sedated and tubed."
    pressure = [f"Arrives with blood pressure {facts.sbp:.0f} systolic."] if np.isfinite(facts.sbp) else []
    return [*before, now, *pressure]


def _imaging(facts: Facts, habit: Style, toss: Iterator[float]) -> list[str]:
    hedge = _pick(("", "", "Motion artefact, read with care."), toss)
    if 0.1 <= facts.ivh_ml < 0.5:
        ivh = _pick(("Trace of intraventricular hemorrhage cannot be excluded.", ""), toss)
    else:
        ivh = _say(
            facts.ivh_ml >= 0.5,
            ("There is intraventricular hemorrhage.", "Extends into ventricles."),
            ("No intraventricular hemorrhage.", "Ventricles clear of blood."),
            "Possible intraventricular hemorrhage.", habit, toss,
        )  # fmt: skip
    swirl = _say(
        facts.swirl, ("Mixed density, swirl sign.", "Black hole sign."), ("Homogeneous density.",),
        "Possible swirl sign.", habit, toss,
    )  # fmt: skip
    return [f"Acute hemorrhage in the {facts.where}.", ivh, swirl, hedge]


def _misspell(text: str, share: float, rng: np.random.Generator) -> str:
    """Exchange, double or drop a letter in a share of the longer words; the first letter stays."""
    pieces = _SPACE.split(text)
    for place in np.flatnonzero(rng.random(len(pieces)) < share).tolist():
        word = pieces[place]
        if len(word) >= 6 and word.isalpha():
            at = 1 + int(rng.integers(len(word) - 2))
            kind = int(rng.integers(3))
            middle = (word[at + 1] + word[at], word[at] * 2 + word[at + 1], word[at + 1])[kind]
            pieces[place] = word[:at] + middle + word[at + 2 :]
    return "".join(pieces)
