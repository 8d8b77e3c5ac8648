"""Studies in a zip file: the same study comes out, and nothing that a zip can do gets far."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from edgehem.cli import main
from edgehem.dicom import archive, read_study
from edgehem.errors import Code, Refusal


@pytest.fixture(autouse=True)
def unpacked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Archives are unpacked below this folder, which must be empty again after every test."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def files(tmp_path: Path, small_writer: Callable[[Path], list[Path]]) -> list[Path]:
    """The slices of a small head."""
    return small_writer(tmp_path / "study")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The archive of a test; its name says nothing."""
    return tmp_path / "upload"


def pack(target: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return target


def slices(files: list[Path]) -> dict[str, bytes]:
    return {f"export/{file.name}": file.read_bytes() for file in files}


def refusal(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_study(path)
    assert str(path.parent) not in caught.value.reason and ".dcm" not in caught.value.reason
    return caught.value


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_the_study_that_was_packed(files, target, method):
    plain = read_study(files[0].parent)
    packed = read_study(pack(target, slices(files), method))
    assert (packed.digest, packed.notes, packed.series) == (plain.digest, plain.notes, plain.series)


def test_the_private_folder_is_private(files, target, unpacked_into):
    seen = []
    with archive.unpacked(pack(target, slices(files))) as place:
        seen = [stat.S_IMODE(place.stat().st_mode), len(list(place.iterdir()))]
        assert place.parent.parent == unpacked_into and stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert seen == [0o700, len(files)]


def test_names_that_point_elsewhere_are_harmless(files, target, tmp_path):
    names = ["/etc/x{}.dcm", "../../x{}.dcm", "a/../../x{}.dcm", "C:\\x{}.dcm", "{}\\..\\..\\x.dcm"]
    members = {names[i % 5].format(i): file.read_bytes() for i, file in enumerate(files)}
    before = sorted(tmp_path.rglob("*"))
    assert read_study(pack(target, members)).digest == read_study(files[0].parent).digest
    assert sorted(tmp_path.rglob("*")) == sorted([*before, target])


def test_links_folders_and_hidden_files_are_not_looked_at(files, target):
    pack(target, slices(files))
    with zipfile.ZipFile(target, "a") as out:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
        out.writestr("folder/", "")
        out.writestr("__MACOSX/export/._s1.dcm", b"\0\5\26\7")
        out.writestr("export/.DS_Store", b"x")
    assert read_study(target).notes == ()


def test_two_members_of_one_name_are_both_read(files, target):
    pack(target, slices(files))
    with zipfile.ZipFile(target, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr(f"export/{files[3].name}", files[3].read_bytes())
    assert [note.code for note in read_study(target).notes] == [Code.DUPLICATES_DROPPED]
    other = bytearray(files[3].read_bytes())
    other[-100] ^= 1
    with zipfile.ZipFile(target, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr(f"export/{files[3].name}", bytes(other))
    assert refusal(target).code is Code.GEOMETRY_MIXED


def test_an_archive_inside_is_a_stranger(files, target):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as out:
        out.writestr("x.dcm", files[0].read_bytes())
    assert refusal(pack(target, {"inner.zip": inner.getvalue()})).code is Code.NO_DICOM
    pack(target, {**slices(files), "inner.zip": inner.getvalue(), "viewer.exe": b"MZ" + bytes(2**20)})
    (note,) = read_study(target).notes
    assert note.code is Code.FILES_PASSED_OVER and "2 files" in note.reason


def test_a_stranger_is_not_inflated(files, target):
    pack(target, {**slices(files), "viewer.exe": bytes(2**20)})
    with archive.unpacked(target) as place:
        assert max(file.stat().st_size for file in place.iterdir()) == 4096


def test_an_empty_archive(target):
    assert refusal(pack(target, {})).code is Code.NO_DICOM


@pytest.mark.parametrize("end", [-1, -30, -200, 2000, 40])
def test_a_cut_archive_is_damaged(files, target, end):
    pack(target, slices(files))
    target.write_bytes(target.read_bytes()[:end])
    assert refusal(target).code is Code.UNREADABLE


def test_damage_inside_a_member(files, target):
    data = bytearray(pack(target, slices(files)).read_bytes())
    data[len(data) // 2] ^= 0xFF
    target.write_bytes(data)
    assert refusal(target).code is Code.UNREADABLE


def test_every_cut_gets_an_answer(target, files):
    data = pack(target, {"a.dcm": files[0].read_bytes()[:400]}, zipfile.ZIP_STORED).read_bytes()
    for end in range(4, len(data), 7):
        target.write_bytes(data[:end])
        refusal(target)


def test_garbage_gets_an_answer(files, target):
    """Bytes changed anywhere give a study or a refusal, never another error."""
    data = pack(target, slices(files)).read_bytes()
    rng = np.random.default_rng(4)
    for number in range(150):
        bent = bytearray(data)
        # Half of the changes fall into the directory, at the end, which everything hangs on.
        low = len(data) - 1500 if number % 2 else 4
        for place in rng.integers(low, len(data), size=rng.integers(1, 5)):
            bent[place] = rng.integers(256)
        target.write_bytes(bent)
        with contextlib.suppress(Refusal):
            read_study(target)


def test_a_medium_inside(files, target, tmp_path):
    """A DICOMDIR in an archive tells what was meant to be there, like one in a folder."""
    made = FileSet()
    for file in files:
        ds = pydicom.dcmread(file)
        ds.StudyDate, ds.StudyTime, ds.StudyID = "20260101", "000000", "1"
        made.add(ds)
    made.write(tmp_path / "medium")
    made._stage["t"].cleanup()  # pydicom leaves it to the garbage collector, which warns
    members = {str(f.relative_to(tmp_path)): f.read_bytes() for f in (tmp_path / "medium").rglob("*") if f.is_file()}
    plain = read_study(files[0].parent)
    packed = read_study(pack(target, members))
    assert (packed.digest, packed.notes, len(packed.series)) == (plain.digest, (), 1)
    origins = {name: pydicom.dcmread(tmp_path / name).get("ImagePositionPatient") for name in members}
    del members[max(members, key=lambda name: origins[name][2] if origins[name] else -1e9)]
    assert refusal(pack(target, members)).code is Code.SLICE_GAP


def test_at_the_console(files, target, capsys):
    assert main(["triage", str(pack(target, slices(files[:4]))), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["codes"] == [Code.TOO_FEW_SLICES.value]
    target.write_bytes(target.read_bytes()[:-5])
    assert main(["triage", str(target)]) == 3
    shown = capsys.readouterr()
    assert "zip archive" in shown.out and "Traceback" not in shown.err


def set_flags(target: Path, offset_in_entry: int, value: int) -> None:
    """Overwrite two bytes of every entry of the central directory."""
    data = bytearray(target.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + offset_in_entry : at + offset_in_entry + 2] = value.to_bytes(2, "little")
        at = data.find(b"PK\x01\x02", at + 4)
    target.write_bytes(data)


def test_a_locked_archive_says_so(files, target):
    set_flags(pack(target, slices(files)), 8, 1)
    found = refusal(target)
    assert found.code is Code.UNREADABLE and "password" in found.reason


@pytest.mark.parametrize("method", [1, 9, 14, 95])
def test_other_methods_are_not_unpacked(files, target, method):
    set_flags(pack(target, slices(files)), 10, method)
    found = refusal(target)
    assert found.code is Code.UNREADABLE and "method" in found.reason


def test_a_bomb_is_refused_before_it_is_inflated(files, target, monkeypatch):
    monkeypatch.setattr(archive, "_copy", lambda *_: pytest.fail("inflated"))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out, out.open("a.dcm", "w") as member:
        for _ in range(80):
            member.write(bytes(2**20))
    found = refusal(target)
    assert found.code is Code.TOO_LARGE and "hundredfold" in found.reason


def test_sizes_that_lie_do_not_help_a_bomb(files, target, monkeypatch):
    """A member declares few bytes and inflates to many: what comes out is counted."""
    monkeypatch.setattr(archive, "MAX_MEMBER", 2**16)
    head = files[0].read_bytes()
    data = bytearray(pack(target, {"a.dcm": head + bytes(2**20)}).read_bytes())
    true = (len(head) + 2**20).to_bytes(4, "little")
    assert data.count(true) == 2
    target.write_bytes(data.replace(true, (2000).to_bytes(4, "little")))
    assert refusal(target).code in (Code.TOO_LARGE, Code.UNREADABLE)


def test_the_total_is_counted(files, target, monkeypatch):
    size = files[0].stat().st_size
    monkeypatch.setattr(archive, "MAX_TOTAL", 3 * size)
    assert refusal(pack(target, slices(files))).code is Code.TOO_LARGE
    monkeypatch.setattr(archive, "_refuse_members", lambda _: None)
    assert refusal(target).code is Code.TOO_LARGE


def test_too_many_members(files, target, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    assert refusal(pack(target, slices(files))).code is Code.TOO_LARGE
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 500)
    assert refusal(target).code is Code.TOO_LARGE


def test_no_room_left(files, target, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_copy", full)
    assert refusal(pack(target, slices(files))).code is Code.UNREADABLE


def test_no_folder_can_be_made(files, target, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert refusal(pack(target, slices(files))).code is Code.UNREADABLE


def test_dicom_whose_preamble_looks_like_a_zip(files):
    for file in files:
        data = file.read_bytes()
        file.write_bytes(b"PK\x03\x04" + data[4:])
    assert read_study(files[0].parent).notes == ()
    assert refusal(files[0]).code is Code.TOO_FEW_SLICES


@pytest.mark.skipif(os.name != "posix", reason="named pipes are a thing of POSIX")
def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with archive.unpacked(tmp_path / "pipe") as place:
        assert place == tmp_path / "pipe"
