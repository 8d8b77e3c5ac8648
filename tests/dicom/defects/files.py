"""What lies in the folder, and the bytes of its files."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from defects.given import CANARY, Family, Given, insert, raw
from edgehem.errors import Code

FILES = Family("files")
refused, flagged, read_right = FILES.refused, FILES.flagged, FILES.read_right

UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    """An explicit little-endian element that says any length."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HI", 0, length) if long else struct.pack("<H", length)) + value


@refused(Code.NO_DICOM, "an empty folder", "nothing was exported")
def _(given: Given) -> None:
    given.written = True


@refused(Code.NO_DICOM, "photos and texts only", "the wrong folder")
def _(given: Given) -> None:
    given.written = True
    (given.folder / f"{CANARY}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(500))
    (given.folder / "README.txt").write_text(CANARY)


@refused(Code.NO_DICOM, "hidden files only", "an operating system's leftovers")
def _(given: Given) -> None:
    given.written = True
    (given.folder / ".DS_Store").write_bytes(bytes(4096))
    (given.folder / "._IM0001.dcm").write_bytes(bytes(4096))


@read_right("hidden files beside the scan", "usual on memory sticks")
def _(given: Given) -> None:
    given.write()
    (given.folder / ".DS_Store").write_bytes(bytes(4096))
    (given.folder / f"._{CANARY}_IM0001.dcm").write_bytes(bytes(4096))


@flagged(Code.FILES_PASSED_OVER, name="a viewer and a text beside the scan", cause="usual on disks", same=True)
def _(given: Given) -> None:
    given.write()
    (given.folder / "VIEWER.EXE").write_bytes(b"MZ" + bytes(5000))
    (given.folder / f"{CANARY}.txt").write_text(CANARY)


@refused(Code.UNREADABLE, "an empty file among the slices", "a full disk")
def _(given: Given) -> None:
    given.write()[-1].write_bytes(b"")


@refused(Code.UNREADABLE, "a file of zeros among the slices", "a disk repaired after a crash")
def _(given: Given) -> None:
    file = given.write()[-1]
    file.write_bytes(bytes(file.stat().st_size))


@refused(Code.UNREADABLE, "a text called .dcm", "an error page saved by a download")
def _(given: Given) -> None:
    given.write()[-1].write_text(f"<html>404 {CANARY}</html>")


@refused(Code.SLICE_GAP, "a slice of zeros, without a suffix", "a disk repaired after a crash")
def _(given: Given) -> None:
    for i, file in enumerate(given.write()):
        if i == 9:
            file.write_bytes(bytes(file.stat().st_size))
        file.rename(file.with_suffix(""))


@refused(Code.UNREADABLE, "half a header", "a transfer interrupted")
def _(given: Given) -> None:
    file = given.write()[-1]
    file.write_bytes(file.read_bytes()[:500])


@refused(Code.UNREADABLE, "a header that ends between two elements", "a transfer interrupted")
def _(given: Given) -> None:
    file = given.write()[-1]
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"\x28\x00\x10\x00US")])


@refused(Code.UNREADABLE, "nothing after the magic word", "a transfer interrupted")
def _(given: Given) -> None:
    given.write()[-1].write_bytes(bytes(128) + b"DICM")


@refused(Code.UNREADABLE, "noise after the magic word", "a bad block on a disk")
def _(given: Given) -> None:
    given.write()[-1].write_bytes(bytes(128) + b"DICM" + b"\xff" * 9000)


@read_right("no preamble", "files of the 1990s")
def _(given: Given) -> None:
    for file in given.write():
        file.write_bytes(file.read_bytes()[132:])


@read_right("no preamble and no file meta", "raw data sets from a network dump")
def _(given: Given) -> None:
    for file in given.write():
        data = file.read_bytes()
        file.write_bytes(data[data.index(b"\x08\x00\x08\x00CS") :])


@read_right("implicit VR", "usual")
def _(given: Given) -> None:
    given.write(syntax=ImplicitVRLittleEndian)


@read_right("big endian", "retired, on old disks")
def _(given: Given) -> None:
    for ds in given.slices:
        data = bytearray(ds.PixelData)
        data[::2], data[1::2] = data[1::2], data[::2]
        ds.PixelData = bytes(data)
    given.write(syntax=ExplicitVRBigEndian)


@refused(Code.SYNTAX_UNSUPPORTED, "deflated", "half a megabyte can become half a gigabyte")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    given.write()


@refused(Code.UNREADABLE, "explicit VR that says it is implicit", "a gateway that changed the label only")
def _(given: Given) -> None:
    for file in given.write():
        data = file.read_bytes()
        file.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0", 1))


@read_right("3,000 nested sequences", "hostile, or a structured report gone wrong")
def _(given: Given) -> None:
    begin = element(0x00081140, b"SQ", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for file in given.write()[:3]:
        insert(file, begin * 3000 + end * 3000)


@refused(Code.UNREADABLE, "3,000 nested sequences that never end", "hostile")
def _(given: Given) -> None:
    begin = element(0x00081140, b"SQ", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    insert(given.write()[0], begin * 3000)


@refused(Code.TOO_LARGE, "hundreds of files with 40,000 elements each", "hostile: each is within bounds")
def _(given: Given) -> None:
    # Links to one file: what counts is how often it is read.
    first = given.write()[0]
    insert(first, element(0x00091001, b"LO", 0) * 40_000)
    for number in range(200):
        (first.parent / f"again{number}.dcm").hardlink_to(first)


@refused(Code.UNREADABLE, "60,000 empty elements", "hostile")
def _(given: Given) -> None:
    insert(given.write()[0], element(0x00091001, b"LO", 0) * 60_000)


@refused(Code.UNREADABLE, "an element of 4 GiB", "a bad block on a disk, or hostile")
def _(given: Given) -> None:
    insert(given.write()[0], element(0x00091001, b"OB", 0xFFFFFFF0, b"abcd"))


@refused(Code.UNREADABLE, "a text of undefined length", "a bad block on a disk, or hostile")
def _(given: Given) -> None:
    insert(given.write()[0], element(0x00091001, b"UT", UNDEFINED, b"some text"))


@refused(Code.UNREADABLE, "a value representation that is none", "a bad block on a disk")
def _(given: Given) -> None:
    insert(given.write()[0], element(0x00091001, b"\xee\x01", 4, b"abcd"))


@read_right("numbers under another value representation", "a gateway that writes all as text")
def _(given: Given) -> None:
    for ds in given.slices:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleIntercept"):
            value = ds[keyword].value
            text = "\\".join(map(str, value)) if not isinstance(value, (str, float)) else str(value)
            raw(ds, keyword, text.encode(), vr="LO")


@refused(Code.GEOMETRY_MISSING, "binary where text belongs", "a gateway that writes floats")
def _(given: Given) -> None:
    for ds in given.slices:
        raw(ds, "ImagePositionPatient", struct.pack("<3d", *map(float, ds.ImagePositionPatient)), vr="FD")


@read_right("sequences of undefined length", "usual")
def _(given: Given) -> None:
    inner = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + element(0x00080060, b"CS", 2, b"MR")
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for file in given.write():
        insert(file, element(0x00081140, b"SQ", UNDEFINED) + inner + end)


@read_right("private garbage", "every scanner's")
def _(given: Given) -> None:
    for i, file in enumerate(given.write()):
        noise = bytes((i * 37 + j * 101) % 256 for j in range(600))
        insert(file, element(0x00091001, b"OB", 600, noise) + element(0x000910FF, b"LO", 6, b"\xff\xfe\x80\x00\\\x1b"))


@read_right("a private element of 1.5 MB before the pixels", "raw data some scanners keep")
def _(given: Given) -> None:
    insert(given.write()[3], element(0x00091001, b"OB", 1_500_000, bytes(1_500_000)))


@refused(Code.UNREADABLE, "a private element of 20 MB before the pixels", "more than any header has")
def _(given: Given) -> None:
    insert(given.write()[3], element(0x00091001, b"OB", 20_000_000, bytes(20_000_000)))


@read_right("characters of no character set in names", "names in a local code page")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.SpecificCharacterSet = "ISO_IR 6"
        raw(ds, "PatientName", f"{CANARY}^".encode() + bytes(range(128, 255)))
        raw(ds, "SeriesDescription", b"\xff\xfe\x00\x1b$B kopf")
    for file in given.write():
        file.write_bytes(file.read_bytes().replace(b"ISO_IR 6", b"ISO_IR 9"))


@read_right("a name of 60,000 characters", "a gateway's error text in the wrong field")
def _(given: Given) -> None:
    for ds in given.slices:
        raw(ds, "PatientName", (CANARY * 10_000).encode())


@refused(Code.UNREADABLE, "one field with two values", "two headers merged")
def _(given: Given) -> None:
    insert(given.write()[0], element(0x00080060, b"CS", 2, b"MR"))


@read_right("one field twice with the same value", "two headers merged")
def _(given: Given) -> None:
    insert(given.write()[0], element(0x00080060, b"CS", 2, b"CT"))


@read_right("zeros after the pixels", "disks written in whole sectors")
def _(given: Given) -> None:
    for file in given.write():
        file.write_bytes(file.read_bytes() + bytes(2048))


@refused(Code.UNREADABLE, "a file that shrinks while it is read", "the export still runs")
def _(given: Given) -> None:
    file = given.write()[5]

    def cut() -> None:
        os.truncate(file, file.stat().st_size - 1000)

    given.meanwhile = cut


@refused(Code.UNREADABLE, "a file that vanishes while it is read", "a clean-up runs")
def _(given: Given) -> None:
    given.meanwhile = given.write()[5].unlink


@refused(Code.UNREADABLE, "a file that may not be read", "rights of another user")
def _(given: Given) -> None:
    if os.geteuid() == 0:
        raise NotImplementedError("root may read everything")
    given.write()[5].chmod(0)


@refused(Code.UNREADABLE, "a disk that fails", "a scratch, a loose cable")
def _(given: Given) -> None:
    if not Path("/proc/self/mem").exists():
        raise NotImplementedError("a file that cannot be read is made from /proc here")
    file = given.write()[5]
    file.unlink()
    file.symlink_to("/proc/self/mem")


@read_right("links in a circle", "a home folder was given")
def _(given: Given) -> None:
    given.write()
    (given.folder / "again").symlink_to(given.folder)
    (given.folder / "loop").symlink_to(given.folder / "loop")


@read_right("a pipe and a socket in the folder", "a running program's folder was given")
def _(given: Given) -> None:
    given.write()
    os.mkfifo(given.folder / f"{CANARY}.dcm")
    here = Path.cwd()
    os.chdir(given.folder)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock.dcm")
    finally:
        os.chdir(here)


@refused(Code.TOO_LARGE, "5,000 files", "a whole archive was given")
def _(given: Given) -> None:
    first = given.write()[0]
    for i in range(5000):
        os.link(first, given.folder / f"{i:05d}")


@read_right("150 folders deep", "an archive's habit, overdone")
def _(given: Given) -> None:
    files = given.write()
    deep = given.folder.joinpath(*["d"] * 150)
    deep.mkdir(parents=True)
    for file in files:
        shutil.move(file, deep / file.name)


@refused(Code.TOO_FEW_SLICES, "one file of the series", "a file was picked instead of the folder")
def _(given: Given) -> Path:
    return given.write()[14]


@read_right("a zip file", "usual for web portals")
def _(given: Given) -> Path:
    given.write()
    return Path(shutil.make_archive(str(given.folder.parent / f"{CANARY}_study"), "zip", given.folder))


@refused(Code.UNREADABLE, "a zip file cut off", "a download interrupted")
def _(given: Given) -> Path:
    given.write()
    file = Path(shutil.make_archive(str(given.folder.parent / f"{CANARY}_study"), "zip", given.folder))
    file.write_bytes(file.read_bytes()[:-5000])
    return file
