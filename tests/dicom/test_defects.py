"""The matrix of defects: every kind through the whole program, against its expected verdict and code.

No kind may end in a traceback, none that must be refused may pass, and no output may name a patient, a file or a path.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from defects import REGISTRY, Defect, Given
from defects.given import BIRTH_DATE, CANARY, SERIES

import edgehem
from edgehem.cli import EXIT_DONE, EXIT_NO_RESULT, main
from edgehem.dicom import Study
from edgehem.dicom import read as intake
from edgehem.errors import Code
from edgehem.model import Model
from edgehem.phantom import Case, Protocol, make_case
from edgehem.phantom.files import to_dicom
from edgehem.report.text import render_text
from edgehem.result import Verdict

LONGEST_S = 5.0
"""No kind may take longer; the machine may be busy."""
LEAST_KINDS = 40
RAISED = "an exception"

TABLE: dict[str, tuple[Defect, str]] = {}
"""What came of every kind that ran, for the table at the end."""


@pytest.fixture(scope="module")
def case() -> Case:
    """A head that the model accepts, without a doubt and without a note."""
    protocol = Protocol(slices=20, matrix=64, tilt_deg=0, variable_spacing=False, intercept=-1024, bits=16)
    return make_case(6, protocol=protocol, voxel_mm=2.0)


@pytest.fixture(scope="module")
def model() -> Model:
    return edgehem.load()


@pytest.fixture
def given(case: Case, tmp_path: Path) -> Given:
    folder = tmp_path / f"{CANARY}_FOLDER"
    folder.mkdir()
    slices = to_dicom(case)
    for i, ds in enumerate(slices):
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{CANARY}^NAME", f"{CANARY}-ID", BIRTH_DATE
        ds.AccessionNumber, ds.InstitutionName, ds.ReferringPhysicianName = f"{CANARY}1", CANARY, f"{CANARY}^DOCTOR"
        ds.StudyDescription, ds.SeriesDescription = f"{CANARY} STUDY", f"{CANARY} HEAD"
        ds.ImageComments = CANARY
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = SERIES, f"{SERIES}.1", f"{SERIES}.1.{i + 1}"
    data = os.environ.get("EDGEHEM_TEST_DATA")
    return Given(folder, slices, Path(data) if data else None)


@pytest.fixture(scope="module")
def sound(case: Case) -> npt.NDArray[np.float32]:
    """Hounsfield units of the study without a defect, [Z, Y, X]."""
    return hounsfield(case)


def hounsfield(found: Case | Study) -> npt.NDArray[np.float32]:
    volume = found.volume
    return volume.pixels * volume.slope[:, None, None] + volume.intercept[:, None, None]


@pytest.fixture
def overheard(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Everything said on the way: logs of all levels, and both streams, those of C libraries included."""
    caplog.set_level(logging.DEBUG)

    def listen() -> str:
        out, err = capfd.readouterr()
        return out + err + caplog.text

    return listen


def made(defect: Defect, given: Given) -> Path:
    if defect.real and given.data is None:
        pytest.skip("EDGEHEM_TEST_DATA is not set: the real data is not at hand")
    try:
        path = defect.make(given)
    except NotImplementedError as error:
        pytest.skip(str(error))
    if not given.written:
        given.write()
    return path or given.folder


def refuse_leaks(said: str, path: Path) -> None:
    """No identifier, no free text, no name of a file or folder."""
    for secret in (CANARY, BIRTH_DATE, SERIES, str(path), path.parent.parent.name):
        assert secret not in said


KINDS = [
    pytest.param(name, marks=[pytest.mark.xfail(reason=f"not yet: {defect.unmet}")] if defect.unmet else [])
    for name, defect in REGISTRY.items()
]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gets_its_verdict(
    name: str,
    given: Given,
    model: Model,
    sound: npt.NDArray[np.float32],
    overheard: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defect = REGISTRY[name]
    path = made(defect, given)
    if given.meanwhile is not None:
        disturb(monkeypatch, given.meanwhile)
    TABLE[name] = (defect, RAISED)
    begun = time.perf_counter()
    result, study = model.triage_path(path)  # a refusal is a result; whatever is raised is a failure
    taken = time.perf_counter() - begun
    TABLE[name] = (defect, ", ".join([result.verdict.value, *(code.value for code in result.codes)]))

    said = overheard() + render_text(result) + result.to_json()
    if study is not None:
        said += repr(study.series) + repr(study.notes)
    refuse_leaks(said, path)
    assert taken < LONGEST_S
    if defect.verdict is Verdict.NO_RESULT:
        assert (result.verdict, result.codes[:1]) == (Verdict.NO_RESULT, defect.codes)
        assert result.findings == () and result.key_slices == ()
        return
    assert result.verdict is not Verdict.NO_RESULT, result.reasons
    assert study is not None
    # What part of the head is missing is said when the head is placed in the model's grid.
    assert {note.code for note in study.notes} == set(defect.codes) - {Code.COVERAGE_PARTIAL}
    assert set(defect.codes) <= set(result.codes)
    assert result.verdict is Verdict.FLAG or not defect.codes
    if defect.same:
        assert np.array_equal(hounsfield(study), sound)


def disturb(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Make a change between reading the headers and reading the pixels."""
    select = intake.select

    def disturbed(*arguments: Any, **options: Any) -> Any:
        selection = select(*arguments, **options)
        change()
        return selection

    monkeypatch.setattr(intake, "select", disturbed)


SAMPLE = {(d.family, d.verdict): d.name for d in reversed(REGISTRY.values()) if not d.real}
"""One kind of every family and verdict."""


@pytest.mark.parametrize(("name", "form"), [(name, ("text", "json")[i % 2]) for i, name in enumerate(SAMPLE.values())])
def test_at_the_command_line(name: str, form: str, given: Given, overheard: Callable[[], str], tmp_path: Path) -> None:
    defect = REGISTRY[name]
    path = made(defect, given)
    out = tmp_path / "out"
    code = main(["triage", str(path), "--out", str(out), *(["--json"] if form == "json" else [])])
    assert code == (EXIT_NO_RESULT if defect.verdict is Verdict.NO_RESULT else EXIT_DONE)
    said = overheard()
    assert "Traceback" not in said
    refuse_leaks(said + "".join(file.read_text("utf-8") for file in out.glob("*.[jt]*")), path)
    answer = json.loads((out / "result.json").read_bytes())
    assert {code.value for code in defect.codes} <= set(answer["codes"])


def test_there_are_enough_kinds() -> None:
    assert len(REGISTRY) >= LEAST_KINDS
    assert len({defect.codes for defect in REGISTRY.values()}) > 10


def test_the_table() -> None:
    """Shown with ``-rP``, or when something is wrong: what came of every kind that ran."""
    for name, (defect, outcome) in TABLE.items():
        print(f"{defect.family:18}{name:75}{outcome}")
    assert not [name for name, (_, outcome) in TABLE.items() if outcome == RAISED]
