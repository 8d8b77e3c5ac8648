"""What a radiographer sees when a study cannot be analysed: exit code 3 and a sentence, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgehem.cli import main
from edgehem.errors import Code


def _not_dicom(study: Path, **_: Any) -> None:
    (study / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(500))
    (study / "readme.txt").write_text("nothing to see")


def _empty(study: Path, **_: Any) -> None:
    study.mkdir(exist_ok=True)


def _truncated(write: Callable[..., list[Path]], head: Any, **_: Any) -> None:
    file = write(head)[9]
    file.write_bytes(file.read_bytes()[:-1000])


def _scout(write: Callable[..., list[Path]], head: Any, spec: Any, **_: Any) -> None:
    write(head[:1], spec(tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}))


def _chest(write: Callable[..., list[Path]], torso: Any, spec: Any, **_: Any) -> None:
    write(torso, spec(spacing=(3.2, 3.2)))


CASES = [
    (_not_dicom, Code.NO_DICOM),
    (_empty, Code.NO_DICOM),
    (_truncated, Code.UNREADABLE),
    (_scout, Code.NO_AXIAL_SERIES),
    (_chest, Code.NOT_HEAD),
]


@pytest.mark.parametrize(("make", "code"), CASES, ids=[make.__name__.strip("_") for make, _ in CASES])
def test_a_study_that_cannot_be_analysed_gets_a_sentence(
    make: Callable[..., None],
    code: Code,
    study: Path,
    write: Callable[..., list[Path]],
    head: Any,
    torso: Any,
    spec: Any,
    secret: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(study=study, write=write, head=head, torso=torso, spec=spec)
    assert main(["triage", str(study)]) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith("NO-RESULT") and code.value in shown.out
    assert "Traceback" not in shown.out + shown.err and secret not in shown.out + shown.err

    assert main(["triage", str(study), "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "NO-RESULT" and answer["codes"][0] == code.value
    assert answer["findings"] == [] and answer["bundle"]["demonstration"] is True
    sentence = answer["reasons"][0]
    assert sentence[0].isupper() and sentence.endswith(".") and len(sentence.split()) >= 4
    assert str(study) not in sentence


def test_a_single_chest_slice_of_a_hospital_is_refused(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["triage", str(test_data / "ct_syntaxes" / "1.2.840.10008.1.2.1.dcm"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "NO-RESULT"


def test_a_missing_path_is_a_wrong_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["triage", str(tmp_path / "nowhere")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "does not exist" in shown.err


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM")
def test_told_to_stop_it_leaves_nothing_unpacked(tmp_path: Path) -> None:
    """``kill``, ``systemctl stop`` and ``docker stop`` end a process by SIGTERM."""
    source, room = tmp_path / "study.zip", tmp_path / "tmp"
    room.mkdir()
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}", bytes(1_000_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgehem.cli", "triage", str(source)],
        env={**os.environ, "TMPDIR": str(room)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while process.poll() is None and not list(room.glob("edgehem-*")):
            time.sleep(0.002)
        process.terminate()
        assert process.wait(timeout=20) == 143
    finally:
        process.kill()
    assert list(room.glob("edgehem-*")) == []
