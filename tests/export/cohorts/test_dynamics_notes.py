"""Notes: made from the facts, with their mess, without what is known only later; and what the reader makes of them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from edgehem.export.cohorts.core import Variant
from edgehem.export.cohorts.dynamics import Dynamics, note
from edgehem.export.cohorts.notes import STYLES, Facts, write_note
from edgehem.export.cohorts.notes_concepts import read_note, read_notes

FACTS = Facts(
    age=71, male=True, onset_h=2.3, found_down=False, seizure=False, alcohol=False, vomiting=False, hypertension=True,
    diabetes=False, antiplatelet=False, agent="none", dose_h=float("nan"), premorbid=1, where="left thalamus",
    ivh_ml=0.0, swirl=False, sbp=182.0, gcs=12.0,
)  # fmt: skip
LATER = re.compile(
    r"withdraw|comfort|palliat|resuscit|\bdnr\b|goals of care|died|death|expan|poor prognosis|mrs|discharge",
    re.I,
)


def notes(facts: Facts, style: int, count: int = 300) -> list[str]:
    return [write_note(facts, style, seed) for seed in range(count)]


@pytest.mark.parametrize(
    ("text", "concept"),
    [
        ("Witnessed generalised seizure at onset.", "seizure"),
        ("No sz seen.", "no_seizure"),
        ("Bystanders deny seizure activity.", "no_seizure"),
        ("Takes apixaban, last dose 4 hours ago.", "anticoagulant"),
        ("Medication list from last visit: takes warfarin, since stopped.", "no_anticoagulant"),
        ("There is IVH.", "ventricular"),
        ("Ventricles clear of blood.", "no_ventricular"),
        ("No limits before this.", "independent"),
        ("Bedbound, needs full care.", "dependent"),
        ("Found down at home, last seen well unknown.", "found_down"),
    ],
)
def test_reader_finds_concepts_and_their_negation(text: str, concept: str) -> None:
    read = read_note(text)
    name = concept.removeprefix("no_")
    opposite = name if concept.startswith("no_") else f"no_{name}"
    assert read[f"note_{concept}"] == 1
    assert read[f"note_{opposite}"] == 0


def test_reader_halves_what_is_hedged_and_reads_a_clause_at_a_time() -> None:
    assert read_note("Possible seizure at onset, history unclear.")["note_seizure"] == 0.5
    read = read_note("No vomiting. Witnessed seizure.\nNo IVH")
    assert (read["note_no_vomiting"], read["note_seizure"], read["note_no_ventricular"]) == (1, 1, 1)
    assert read_note("last dose 14 hrs ago")["note_last_dose_h"] == 14
    assert np.isnan(read_note("last dose not known")["note_last_dose_h"])
    assert read_notes([]) == {}


@pytest.mark.parametrize("style", range(3))
def test_the_same_seed_writes_the_same_note(style: int) -> None:
    assert notes(FACTS, style, 20) == notes(FACTS, style, 20)
    assert len(set(notes(FACTS, style, 20))) > 15


@pytest.mark.parametrize("style", range(3))
@pytest.mark.parametrize(
    ("name", "there", "concept"),
    [
        ("seizure", True, "seizure"),
        ("alcohol", True, "alcohol"),
        ("vomiting", True, "vomiting"),
        ("found_down", True, "found_down"),
        ("ivh_ml", 8.0, "ventricular"),
        ("swirl", True, "mixed_density"),
        ("premorbid", 4, "dependent"),
    ],
)
def test_what_is_there_is_mostly_said_and_what_is_not_mostly_not(
    style: int, name: str, there: object, concept: str
) -> None:
    on = read_notes(notes(replace(FACTS, **{name: there}), style))[f"note_{concept}"]
    off = read_notes(notes(FACTS, style))[f"note_{concept}"]
    assert (on > 0).mean() > 0.6
    assert (off >= 1).mean() < 0.05


@pytest.mark.parametrize("style", range(3))
def test_dose_is_told_in_some_notes_and_old_lists_contradict(style: int) -> None:
    read = read_notes(notes(replace(FACTS, agent="doac", dose_h=5.0), style))
    dose = read["note_last_dose_h"]
    assert 0.5 < np.isfinite(dose).mean() < 0.9 and set(dose[np.isfinite(dose)]) == {5.0}
    both = (read["note_anticoagulant"] > 0) & (read["note_no_anticoagulant"] > 0)
    assert 0 < both.mean() < 0.25


def test_words_are_misspelt_at_the_rate_of_the_style() -> None:
    def known(style: int) -> float:
        words = [word for text in notes(FACTS, style) for word in re.findall(r"[a-z]{6,}", text)]
        names, counts = np.unique(words, return_counts=True)
        return float(counts[np.array(names) == "weakness"].sum() / len(notes(FACTS, style)))

    # "weakness" stands in every note; a style's share of them is misspelt.
    for style, habit in enumerate(STYLES):
        assert 1 - known(style) == pytest.approx(habit.misspelt, abs=4 * np.sqrt(habit.misspelt / 300))


def test_sections_come_in_more_than_one_order() -> None:
    first = {text.split(":")[0] for text in notes(FACTS, 0)}
    assert first == {"History", "Plan"}


@pytest.mark.parametrize("variant", list(Variant))
def test_no_note_tells_what_is_known_only_later(variant: Variant) -> None:
    drawn = Dynamics().draw(512, seed=3, variant=variant)
    texts = [note(drawn, row) for row in range(len(drawn))]
    assert not [match.group() for text in texts if (match := LATER.search(text))]
    assert not [text for text in texts if re.search(r"\b(19|20)\d\d\b|\d+/\d+", text)]
    assert all(text.isascii() and text.endswith("\n") for text in texts)
