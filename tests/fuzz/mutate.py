"""Studies to start from, and ways to spoil them: by element, byte, file, or as a whole. All follows from numbers."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pydicom
import structure
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from edgehem.dicom.header import _TAGS
from edgehem.phantom import Protocol, make_case
from edgehem.phantom.files import to_dicom

Files = dict[str, bytes]
"""A folder: content by name."""

SLICES, MATRIX = 14, 32
STRUCTURAL = 0.3
"""Share of the changes to a study as a whole."""
_SECOND = 2
"""Draws a second series of all slices."""
LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR"})
VRS = (b"DS", b"IS", b"CS", b"US", b"SS", b"UL", b"UI", b"LO", b"PN", b"FD", b"SQ", b"OB", b"OW", b"UN", b"UT", b"??")
UNDEFINED = 0xFFFFFFFF
LENGTHS = (0, 1, 2, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UNDEFINED)
NUMBERS = (
    b"nan", b"inf", b"-inf", b"1e400", b"-0", b"0", b"", b"1_000", b"1,5", b"\\", b"\\\\\\", b"1e-320", b"9" * 40,
    b"0x10", b"+1", b" 1 ", b"1\0", b"\xff", b"1\\2\\3\\4\\5\\6\\7", b"-1", b"65536", b"2147483648",
)  # fmt: skip
SHORTS = (0, 1, 2, 7, 8, 12, 15, 16, 17, 32, 63, 64, 1024, 1025, 32767, 32768, 65535)
SYNTAXES = (
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.57", b"1.2.840.10008.1.2.4.70",
    b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.201", b"1.2.3", b"", b"x" * 200,
)  # fmt: skip
CLASSES = (
    *(b"1.2.840.10008.5.1.4.1.1." + tail for tail in b"2 2.1 2.2 4 7 9.1.1 66.4 88.33 128".split()),
    b"1.2.840.10008.1.3.10",
    b"",
)
FILLED = tuple(_TAGS.values())


def studies(data: Path | None) -> dict[str, Files]:
    """What the mutations start from, by name: phantoms in every form, and real files where they are at hand."""
    protocol = Protocol(slices=SLICES, matrix=MATRIX, tilt_deg=0, variable_spacing=False, intercept=-1024, bits=16)
    slices = to_dicom(make_case(6, protocol=protocol, voxel_mm=4.0))
    found = {
        "explicit": _files(slices),
        "implicit": _files(slices, implicit=True),
        "big endian": _files(slices, big=True),
        "multi-frame": {"a.dcm": _bytes(structure.joined(slices))},
    }
    found["medium"] = structure.medium(found["explicit"], random.Random(0), right=True)
    found["two series"] = structure.again(found["explicit"], random.Random(_SECOND))
    half = [structure.joined(part, number=i) for i, part in enumerate((slices[:7], slices[7:]))]
    found["two multi-frame"] = {f"{i}.dcm": _bytes(ds) for i, ds in enumerate(half)}
    for name, syntax in (
        ("RLE", RLELossless),
        ("JPEG-LS", pydicom.uid.JPEGLSLossless),
        ("JPEG 2000", pydicom.uid.JPEG2000Lossless),
    ):
        try:
            found[name] = _files([_compressed(ds, syntax) for ds in slices])
        except (RuntimeError, NotImplementedError):
            continue  # no encoder here
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in found["explicit"].items():
            archive.writestr(zipfile.ZipInfo(name), content)
    found["zip"] = {"study.zip": packed.getvalue()}
    return found | (_real(data) if data else {})


def _real(data: Path) -> dict[str, Files]:
    """Real headers over decimated pixels: as many bytes as a case can afford."""
    slices = []
    for file in sorted((data / "ct_head_tilt").glob("*.dcm")):
        ds = pydicom.dcmread(file)
        pixels = ds.pixel_array[::8, ::8]
        ds.PixelData, ds.Rows, ds.Columns = pixels.tobytes(), *pixels.shape
        ds.PixelSpacing = [8 * float(mm) for mm in ds.PixelSpacing]
        slices.append(ds)
    found = {"real head": _files(slices)}
    for file in sorted((data / "ct_syntaxes").glob("*.dcm")):
        found[f"real {file.stem}"] = {"a.dcm": file.read_bytes()}
    return found


def _files(slices: list[Dataset], *, implicit: bool = False, big: bool = False) -> Files:
    return {f"{i:03d}.dcm": _bytes(ds, implicit=implicit, big=big) for i, ds in enumerate(slices)}


def _bytes(ds: Dataset, *, implicit: bool = False, big: bool = False) -> bytes:
    ds = deepcopy(ds)
    if implicit or big:
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ImplicitVRLittleEndian
    if big:
        swapped = bytearray(ds.PixelData)
        swapped[::2], swapped[1::2] = swapped[1::2], swapped[::2]
        ds.PixelData = bytes(swapped)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, implicit_vr=implicit, little_endian=not big, enforce_file_format=True)
    return out.getvalue()


def _compressed(ds: Dataset, syntax: str) -> Dataset:
    ds = deepcopy(ds)
    ds.compress(syntax, generate_instance_uid=False)
    return ds


def spoil(files: Files, seed: int) -> Files:
    """One mutation. The same number does the same to the same files."""
    rng = random.Random(seed)
    if not files:
        return files
    roll = rng.random()
    if roll < 0.08:
        return _spoil_folder(files, rng)
    if roll < 0.08 + STRUCTURAL:
        return structure.spoil(files, rng)
    change = rng.choices(_CHANGES, _WEIGHTS)[0]
    names = list(files)
    scope = rng.random()
    if scope < 0.4:
        chosen = names
    elif scope < 0.8:
        chosen = [rng.choice(names)]
    else:
        chosen = rng.sample(names, rng.randint(1, len(names)))
    inner = rng.getrandbits(64)
    # The same change to every file passes the gates that compare slices.
    return files | {name: change(files[name], random.Random(inner)) for name in chosen}


def _spoil_folder(files: Files, rng: random.Random) -> Files:
    name = rng.choice(list(files))
    kind = rng.randrange(5)
    if kind == 0:
        return {other: content for other, content in files.items() if other != name}
    if kind == 1:
        return files | {f"again{rng.randrange(4)}.dcm": files[name]}
    if kind == 2:
        return files | {rng.choice(("DICOMDIR", "x", "x.dcm", ".x", "x.zip", "x.nii")): files[name]}
    if kind == 3:
        other = rng.choice(list(files))
        return files | {name: files[other], other: files[name]}
    return files | {"noise.dcm": rng.randbytes(rng.randrange(400))}


Element = list[object]
"""Tag bytes, VR (empty where implicit), stated length, value."""


def _elements(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes, int, bytes]], bytes]:
    """A file as what comes before its data set, its top-level elements, and what could not be read. Little endian."""
    at = 132 if data[128:132] == b"DICM" else 0
    head, found = data[:at], []
    while at + 8 <= len(data):
        tag, vr = data[at : at + 4], data[at + 4 : at + 6]
        if vr.isalpha() and vr.isupper():
            if vr in LONG:
                (length,), start = struct.unpack_from("<I", data, at + 8) if at + 12 <= len(data) else (0,), at + 12
            else:
                (length,), start = struct.unpack_from("<H", data, at + 6), at + 8
        else:
            vr = b""
            (length,), start = struct.unpack_from("<I", data, at + 4), at + 8
        if length == UNDEFINED or start + length > len(data):
            break
        found.append((tag, vr, length, data[start : start + length]))
        at = start + length
    return head, found, data[at:]


def _join(head: bytes, elements: list[tuple[bytes, bytes, int, bytes]], rest: bytes) -> bytes:
    parts = [head]
    for tag, vr, length, value in elements:
        if not vr:
            parts += [tag, struct.pack("<I", length & UNDEFINED), value]
        elif vr in LONG:
            parts += [tag, vr, b"\0\0", struct.pack("<I", length & UNDEFINED), value]
        else:
            parts += [tag, vr, struct.pack("<H", length & 0xFFFF), value]
    return b"".join([*parts, rest])


def _by_element(data: bytes, rng: random.Random) -> bytes:
    """Drop, repeat, move, rename, relabel, resize, refill or nest one element."""
    head, elements, rest = _elements(data)
    if not elements:
        return _by_byte(data, rng)
    asked = [i for i, (tag, *_) in enumerate(elements) if _number(tag) in FILLED]
    i = rng.choice(asked) if asked and rng.random() < 0.7 else rng.randrange(len(elements))
    tag, vr, length, value = elements[i]
    kind = rng.randrange(12)
    if kind == 0:
        del elements[i]
    elif kind == 1:
        elements.insert(rng.randrange(len(elements) + 1), elements[i])
    elif kind == 2:
        elements.insert(rng.randrange(len(elements)), elements.pop(i))
    elif kind == 3:
        elements[i] = (_tag(rng.choice(FILLED)), vr, length, value)
    elif kind == 4:
        elements[i] = (tag, rng.choice(VRS), length, value)
    elif kind == 5:
        elements[i] = (tag, vr, rng.choice((*LENGTHS, length + 1, length - 1, length * 2)), value)
    elif kind == 6:
        elements[i] = _nested(elements[i], rng)
    elif kind == 7:
        value = rng.randbytes(rng.choice((0, 1, 2, 4, 8, 64, 1024, 1025, 70_000)))
        elements[i] = (tag, vr, len(value), value)
    elif kind == 8 and vr in (b"US", b"SS", b"UL"):
        value = struct.pack("<H", rng.choice(SHORTS))
        elements[i] = (tag, vr, len(value), value)
    else:
        parts = value.split(b"\\")
        parts[rng.randrange(len(parts))] = rng.choice(NUMBERS)
        value = b"\\".join(parts)
        value += b" " * (len(value) % 2)
        elements[i] = (tag, vr, len(value), value)
    return _join(head, elements, rest)


def _nested(element: tuple[bytes, bytes, int, bytes], rng: random.Random) -> tuple[bytes, bytes, int, bytes]:
    tag, vr, _, value = element
    depth = rng.choice((1, 2, 10, 1000, 5000))
    if rng.random() < 0.5:
        begin = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + tag + b"SQ\0\0" + struct.pack("<I", UNDEFINED)
        end = struct.pack("<HHIHHI", 0xFFFE, 0xE0DD, 0, 0xFFFE, 0xE00D, 0)
        inside = begin * depth + end * (depth - rng.randrange(2))
        return tag, b"SQ" if vr else b"", UNDEFINED, inside + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    inside = value[:200]
    for _ in range(min(depth, 100)):
        inside = struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside
    return tag, rng.choice((b"SQ", b"UN")) if vr else b"", len(inside), inside


def _number(tag: bytes) -> int:
    group, element = struct.unpack("<HH", tag)
    return int(group << 16 | element)


def _tag(number: int) -> bytes:
    return struct.pack("<HH", number >> 16, number & 0xFFFF)


def _by_kind(data: bytes, rng: random.Random) -> bytes:
    """Another transfer syntax, SOP class, modality, or number of frames than the bytes are of."""
    head, elements, rest = _elements(data)
    tag, values = rng.choice((
        (0x00020010, SYNTAXES), (0x00020002, CLASSES), (0x00080016, CLASSES),
        (0x00080060, (b"CT", b"MR", b"SR", b"ECG ", b"SEG ", b"PT", b"")),
        (0x00280008, (b"0 ", b"1 ", b"14", b"2000", b"-1", b"99999999")),
    ))  # fmt: skip
    value = rng.choice(values)
    value += b"\0" * (len(value) % 2)
    vr = b"UI" if tag != 0x00080060 else b"CS"
    new = (_tag(tag), vr if not elements or elements[0][1] else b"", len(value), value)
    at = next((i for i, (name, *_) in enumerate(elements) if _number(name) >= tag), len(elements))
    if at < len(elements) and _number(elements[at][0]) == tag:
        elements[at] = (new[0], elements[at][1], len(value), value)
    else:
        elements.insert(at, new)
    return _join(head, elements, rest)


def _by_byte(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, blank or insert bytes; most of them in the header."""
    if not data:
        return rng.randbytes(rng.randrange(300))
    out = bytearray(data)
    reach = len(out) if rng.random() < 0.3 else min(len(out), 2000)
    at = rng.randrange(reach)
    kind = rng.randrange(7)
    if kind == 0:
        for _ in range(rng.randint(1, 16)):
            out[rng.randrange(reach)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        del out[at : at + rng.choice((1, 2, 4, 8, 100))]
    elif kind == 3:
        out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 100)))
    elif kind == 4:
        size = rng.choice((4, 64, 512, 4096))
        out[at : at + size] = bytes(min(size, len(out) - at))
    elif kind == 5:
        size = rng.choice((4, 12, 64, 512))
        source = rng.randrange(len(out))
        out[at:at] = out[source : source + size]
    elif at + 4 <= len(out):
        struct.pack_into("<I", out, at, rng.choice(LENGTHS))
    return bytes(out)


def _by_pixels(data: bytes, rng: random.Random) -> bytes:
    """Spoil bytes behind the start of Pixel Data: codecs' headers lie there."""
    at = max(data.rfind(b"\xe0\x7f\x10\x00"), data.rfind(b"\x7f\xe0\x00\x10"))
    if at < 0:
        return _by_byte(data, rng)
    reach = len(data) - at if rng.random() < 0.4 else min(len(data) - at, 160)
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = at + rng.randrange(reach)
        if rng.random() < 0.5 and place + 4 <= len(out):
            struct.pack_into(rng.choice("<>") + "I", out, place, rng.choice(LENGTHS))
        else:
            out[place] = rng.randrange(256)
    return bytes(out)


Change = Callable[[bytes, random.Random], bytes]
_CHANGES: tuple[Change, ...] = (_by_element, _by_kind, _by_byte, _by_pixels)
_WEIGHTS = (6, 1.5, 3, 2)
