"""Ceilings of parts: below the whole, true as chances, told in the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgehem.export.cohorts import exam_report
from edgehem.export.cohorts.core import Variant
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.exam import Size
from edgehem.export.cohorts.exam_parts import PartRow, examine_parts
from edgehem.export.cohorts.registry import COHORTS, cohort


@pytest.fixture(scope="module")
def parts() -> list[PartRow]:
    pytest.importorskip("scipy")
    return examine_parts([cohort("cvt"), cohort("post_intervention")], large=3_000, nearer=1)


@pytest.mark.parametrize("name", COHORTS)
def test_the_truth_has_every_part(name: str) -> None:
    kind = cohort(name)
    for variant in (Variant.PLANTED, Variant.SHIFTED):
        drawn = kind.draw(64, variant=variant)
        for part in kind.parts:
            values = drawn.truth[part.truth]
            assert ((values >= 0) & (values <= 1)).all()
            assert part.label in drawn.labels


@pytest.mark.torch
def test_parts_are_calibrated_and_below_the_whole(parts: list[PartRow]) -> None:
    assert [part.cohort for part in parts] == 6 * ["cvt"] + ["post_intervention"]
    drawn = cohort("cvt").draw(3_000)
    whole = concordance(drawn.outcome("cvt"), drawn.chance["cvt"])
    for part in parts:
        assert not part.wrong
        assert part.patients == 6_000
        assert part.ceiling.low < part.ceiling.value < part.ceiling.high
        assert part.shifted.low < part.shifted.value < part.shifted.high
        if part.cohort == "cvt":
            assert part.ceiling.value < whole


@pytest.mark.torch
def test_the_head_in_the_image_tells_more_than_the_hematoma(parts: list[PartRow]) -> None:
    """Age and sex are in the phantom's head and in its file: a ceiling that leaves them out is none for images."""
    by_what = {part.what: part.ceiling.value for part in parts}
    planted, with_head = (
        by_what["what is planted in the image"],
        by_what["the image with the age and sex that its head has"],
    )
    assert with_head > planted + 0.01


@pytest.mark.torch
def test_parts_do_not_depend_on_workers(parts: list[PartRow]) -> None:
    kinds = [cohort("cvt"), cohort("post_intervention")]
    assert examine_parts(kinds, large=3_000, nearer=1, workers=2) == parts


@pytest.mark.torch
def test_a_nearer_bound_is_a_row() -> None:
    pytest.importorskip("scipy")
    rows = examine_parts([cohort("dynamics")], large=300, nearer=200, seed=3)
    assert [row.label for row in rows] == ["expansion", "ventricular_extension"]
    assert all(row.patients == 200 and not row.wrong for row in rows)


@pytest.mark.torch
def test_the_report_tells_them(parts: list[PartRow]) -> None:
    pytest.importorskip("sklearn")
    made = exam_report.report([], parts, seed=0, size=Size())
    assert exam_report.from_json(exam_report.to_json(made)) == made
    assert made.passed
    wrong = exam_report.report([], [replace(parts[0], p=1e-9)], seed=0, size=Size())
    assert not wrong.passed
    for text in (exam_report.to_text(wrong), exam_report.to_markdown(wrong)):
        assert "CHANCES WRONG" in text
        assert parts[0].what in text
    assert np.isfinite([part.p for part in parts]).all()
