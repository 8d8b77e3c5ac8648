"""Compressed pixels: the same values from every syntax, and no harm from any bytes."""

from __future__ import annotations

import dataclasses
import os
import signal
import struct
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID

from edgehem import supervise
from edgehem.dicom import codec, read_study
from edgehem.dicom.codec import DECODERS, LOSSLESS, LOSSY, Decoder, Frame
from edgehem.dicom.scan import scan
from edgehem.errors import Code, Refusal

ROOT = "1.2.840.10008.1.2."
RLE, JPEG, JPEG_LS, NEAR, J2K, J2K_LOSSY = (ROOT + tail for tail in ("5", "4.70", "4.80", "4.81", "4.90", "4.91"))
DELIMITER = bytes.fromhex("feffdde000000000")
SIDE = 64

FORMS = {
    "16 bit signed": (16, 16, True),
    "16 bit unsigned": (16, 16, False),
    "12 bit unsigned": (16, 12, False),
    "12 bit signed": (16, 12, True),
    "8 bit": (8, 8, False),
}


def needs(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: the [codecs] extra brings it")


def picture(allocated: int, stored: int, signed: bool, side: int = SIDE) -> Any:
    rng = np.random.default_rng(stored + signed)
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    y, x = np.mgrid[:side, :side] / side
    wave = low + (high - low) * (0.5 + 0.4 * np.sin(5 * x) * np.cos(4 * y)) + rng.normal(0, 3, (side, side))
    image = np.clip(np.rint(wave), low, high)
    image[0, :2] = low, high
    return image.astype(f"{'i' if signed else 'u'}{allocated // 8}")


def encode_rle(image: Any, stored: int) -> bytes:
    encoder: Any = RLELosslessEncoder
    return bytes(
        encoder.encode(
            image.tobytes(),
            index=0,
            rows=image.shape[0],
            columns=image.shape[1],
            number_of_frames=1,
            samples_per_pixel=1,
            bits_allocated=image.dtype.itemsize * 8,
            bits_stored=stored,
            pixel_representation=int(image.dtype.kind == "i"),
            photometric_interpretation="MONOCHROME2",
            encoding_plugin="pydicom",
        )
    )


def encode_jpeg_ls(image: Any, stored: int, near: int = 0) -> bytes:
    needs("jpeg_ls")
    from jpeg_ls import encode_buffer

    pattern = image.view(f"u{image.dtype.itemsize}") & np.array((1 << stored) - 1, f"u{image.dtype.itemsize}")
    return bytes(encode_buffer(pattern.tobytes(), *image.shape, 1, stored, near))


def encode_j2k(image: Any, stored: int, **options: Any) -> bytes:
    needs("openjpeg")
    from openjpeg.utils import encode_array

    return bytes(encode_array(image, bits_stored=stored, **options))


ENCODERS: dict[str, Callable[[Any, int], bytes]] = {RLE: encode_rle, JPEG_LS: encode_jpeg_ls, J2K: encode_j2k}


def value_of(*fragments: bytes) -> bytes:
    return bytes(encapsulate([part + b"\0" * (len(part) % 2) for part in fragments])) + DELIMITER


@pytest.fixture
def frame(tmp_path: Path, small_writer: Callable[[Path], list[Path]]) -> Callable[..., Frame]:
    """A frame of given encapsulated bytes: 64 × 64 pixels, 16 bit signed, unless told otherwise."""
    header = scan(small_writer(tmp_path / "plain")[0]).headers[0]

    def make(value: bytes, syntax: str, **fields: Any) -> Frame:
        file = tmp_path / f"pixels{len(list(tmp_path.iterdir()))}"
        file.write_bytes(value)
        form = {"rows": SIDE, "columns": SIDE, "bits_allocated": 16, "bits_stored": 16, "representation": 1}
        form |= {"frame": -1} | fields
        changed: Any = dataclasses.replace(header, path=file, pixel_offset=0, size=len(value), syntax=syntax, **form)
        return Frame(header=changed, out=np.full((changed.rows, changed.columns), 77, np.int16))

    return make


def decoded(frame: Frame) -> Any:
    codec.decode_frames([frame])
    return frame.out


def refusal(*frames: Frame) -> Refusal:
    start = time.monotonic()
    with pytest.raises(Refusal) as caught:
        codec.decode_frames(frames)
    assert time.monotonic() - start < 20
    return caught.value


def fields_of(form: str) -> dict[str, Any]:
    allocated, stored, signed = FORMS[form]
    return {"bits_allocated": allocated, "bits_stored": stored, "representation": int(signed)}


# The same values


def test_every_syntax_has_a_place() -> None:
    assert not LOSSLESS & LOSSY
    assert set(DECODERS) == LOSSLESS | LOSSY
    assert not {ROOT + tail for tail in ("4.50", "4.51", "4.53", "4.55")} & set(DECODERS)


@pytest.mark.parametrize(
    ("tail", "tolerance"),
    [("5", 0), ("4.57", 0), ("4.70", 0), ("4.80", 0), ("4.81", 1), ("4.90", 0), ("4.91", 5)],
)
def test_real_slices(test_data: Path, tail: str, tolerance: int) -> None:
    folder = test_data / "ct_syntaxes"
    (header,) = scan(folder / f"{ROOT}{tail}.dcm").headers
    expected = pydicom.dcmread(folder / f"{ROOT}1.dcm").pixel_array
    for decoder in DECODERS[header.syntax]:
        if decoder.module:
            needs(decoder.module)
        out = decoded(Frame(header=header, out=np.empty(expected.shape, np.int16)))
        assert np.abs(out.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("tail", ["4.50", "4.51", "4.53", "4.55"])
def test_real_slices_of_syntaxes_not_to_be_trusted(test_data: Path, tail: str) -> None:
    (header,) = scan(test_data / "ct_syntaxes" / f"{ROOT}{tail}.dcm").headers
    with pytest.raises(Refusal) as caught:
        codec.refuse_unsupported(header.syntax)
    assert caught.value.code is Code.SYNTAX_UNSUPPORTED


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("syntax", ENCODERS)
def test_what_was_encoded_comes_back(frame: Callable[..., Frame], syntax: str, form: str) -> None:
    _, stored, signed = FORMS[form]
    image = picture(*FORMS[form])
    out = decoded(frame(value_of(ENCODERS[syntax](image, stored)), syntax, **fields_of(form)))
    # Patterns of Bits Stored bits: who asked for them gives them their sign.
    mask = (1 << stored) - 1
    assert np.array_equal(out.astype(int) & mask, image.astype(int) & mask)
    if not signed and stored < 16:
        assert np.array_equal(out, image)


@pytest.mark.parametrize("form", FORMS)
def test_rle_without_a_library_gives_the_same(
    frame: Callable[..., Frame], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(*FORMS[form])
    packed = frame(value_of(encode_rle(image, FORMS[form][1])), RLE, **fields_of(form))
    expected = decoded(packed).copy()
    monkeypatch.setitem(DECODERS, RLE, DECODERS[RLE][-1:])
    assert DECODERS[RLE][0].installed and not DECODERS[RLE][0].module
    assert np.array_equal(decoded(packed), expected)
    pattern = f"u{image.dtype.itemsize}"
    assert np.array_equal(expected.astype(pattern), image.view(pattern))


RPCL_IMAGE = """
ff4fff5100294000000000140000001800000000000000000000001400000018000000000000000000018f0101ff50000800
020000000aff52000c00020001000204044001ff5c000a2088909090888888ff64001700014f70656e4a5048205665722030
2e32362e332eff550016006000000000004d0000000000a2000000000139ff90000a00000000004d0003ff93c0002eec5d0d
bdcafc4402f587fc90109b40a3dc13cd7c82283c2063c88c311864119e5a3433ff3beb850732c38f67e99f33f80b3e597e63
450bcc70339c00ff90000a0000000000a20103ff93c000175d00005d8c000175209d1755ef02ca05245ec722a170bd500014
500c0006000080028081410406081e1018fe0ff36bfc46307e88339b009d177bf9bdce7fd10669000120000510000b200000
40000a900a440a4c0e540a5456fe00c4610800c7b31aaf294051be003b6fd8fb002540089718100070003000088004800020
000900b8300812f024fd7de4c690fcf002bb00ff90000a0000000001390203ff93c0002f6680005ec50000bd5ceef77f02e0
00609ab0eb00003f4fda07ff6ff82f0500d319241b741838cd0018800218000540012000e3c256147c56812213a0f1a19c8f
a25bdc00808b5944aeb0250781db04ed5f3acf07fd9b24107e65c69aeff55e3ad4ee4b152170c219fd7e62019fd102ee5ffc
010002743206513001e0fb0ec0940f0074110068830960002224b722153b5120d1c3721dfeb20a6105a8377b26b0da133835
e41233402d1053cc0aaf00876108008200016eb87962ce077afaad8f1fa559dd7ab8419badd4f19c310067d302bcdfff6700
4000300901c0dfa700200062000800188081a4c0a08d99a384a30aa1cd1655b265cc12b4ca10c6ccc1b9989418fc21b76ff7
dc64f759fda96c38fa5fe3d67fcdb7cde0bae9d35f456f3b041f7e83019fd402ffd9
"""
"""24 × 20 values of 16 bits, signed, as DICOM asks of 1.2.840.10008.1.2.4.202 (PS3.5 section 10.18): progression order
RPCL, tile length markers (here with one tile part for each of three resolutions), reversible. By OpenJPH 0.26.3, in
imagecodecs 2026.3.6: htj2k_encode(image, resolutions=2, reversible=True, tlm=True, tilepart=1)."""


@pytest.mark.parametrize("tail", ["4.201", "4.202", "4.203"])
def test_htj2k_in_the_order_of_resolutions(frame: Callable[..., Frame], tail: str) -> None:
    needs("openjpeg")
    y, x = np.mgrid[:24, :20]
    image = (60 * x - 90 * y + (x * y) % 13 - 200).astype(np.int16)
    image[3:6, 4:9] = [-32768, 32767, 0, -1, 1]
    data = bytes.fromhex(RPCL_IMAGE)
    style = data.index(b"\xff\x52") + 4
    assert data[style + 1] == 2  # RPCL, T.800 table A.16
    assert data[style + 8] & 0x40  # HT blocks, T.814
    assert b"\xff\x55" in data[: data.index(b"\xff\x90")]  # TLM
    assert np.array_equal(decoded(frame(value_of(data), ROOT + tail, rows=24, columns=20)), image)
    # An order that the markers do not have is no harm, another wavelet is.
    lossy = data[: style + 9] + b"\0" + data[style + 10 :]
    if ROOT + tail in LOSSLESS:
        assert "header says" in refusal(frame(value_of(lossy), ROOT + tail, rows=24, columns=20)).reason


def test_lossy_values_are_near(frame: Callable[..., Frame]) -> None:
    image = picture(16, 12, False)
    form = fields_of("12 bit unsigned")
    near = decoded(frame(value_of(encode_jpeg_ls(image, 12, near=2)), NEAR, **form))
    assert 0 < np.abs(near.astype(int) - image).max() <= 2
    ratio = decoded(frame(value_of(encode_j2k(image, 12, compression_ratios=[4])), J2K_LOSSY, **form))
    assert 0 < np.abs(ratio.astype(int) - image).max() < 40


def test_a_frame_in_several_fragments_and_a_frame_among_many(frame: Callable[..., Frame]) -> None:
    image = picture(16, 16, True)
    data = encode_rle(image, 16)
    empty_table = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    bare = b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in (data[:100], data[100:300], data[300:])
    )
    whole = empty_table + bare + DELIMITER
    assert np.array_equal(decoded(frame(whole, RLE)), image)
    assert np.array_equal(decoded(frame(whole + b"what follows", RLE)), image)
    assert np.array_equal(decoded(frame(bare, RLE, frame=3)), image)
    for wrong in (bare[:-1], bare + b"\0", bare + DELIMITER, whole[:-4], b""):
        assert refusal(frame(wrong, RLE, frame=3)).code is Code.UNREADABLE
    for wrong in (empty_table + bare, whole[:-1], whole[8:], DELIMITER, empty_table + DELIMITER, b""):
        assert refusal(frame(wrong, RLE)).code is Code.UNREADABLE


def test_frames_of_a_batch_keep_their_places(frame: Callable[..., Frame]) -> None:
    images = [picture(16, 16, True) + np.int16(i) for i in range(30)]
    frames = [frame(value_of(encode_rle(image, 16)), RLE) for image in images]
    codec.decode_frames(frames)
    assert all(np.array_equal(f.out, image) for f, image in zip(frames, images, strict=True))
    codec.decode_frames([])


@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_compressed_study(write: Any, study: Path, head: Any, spec: Any, syntax: str) -> None:
    write(head, spec(bits=12, signed=False))
    plain = read_study(study)

    def pack(ds: Any, i: int) -> None:
        image = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([ENCODERS[syntax](image, 12)])
        ds["PixelData"].is_undefined_length = True
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = UID(syntax)

    files = write(head, spec(bits=12, signed=False, change=pack))
    packed = read_study(study)
    assert packed.digest == plain.digest
    assert packed.notes == plain.notes
    copy = files[3].with_name("copy.dcm")
    copy.write_bytes(files[3].read_bytes())
    assert {note.code for note in read_study(study).notes} == {Code.DUPLICATES_DROPPED}
    copy.unlink()
    data = bytearray(files[5].read_bytes())
    del data[-2000:-1000]
    files[5].write_bytes(data)
    with pytest.raises(Refusal) as caught:
        read_study(study)
    assert caught.value.code is Code.UNREADABLE


# What contradicts the header never reaches a decoder


def size_marker(
    right: int, bottom: int, *, tile: int = 0, components: int = 1, depth: int = 0x8F, wavelet: int = 1
) -> bytes:
    """A JPEG 2000 codestream that has a header and nothing else."""
    head = b"\xff\x4f\xff\x51" + struct.pack(
        ">HHLLLLLLLLH", 41, 0, right, bottom, 0, 0, tile or right, tile or bottom, 0, 0, components
    )
    head += struct.pack("BBB", depth, 1, 1) * components
    style = b"\xff\x52" + struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, wavelet)
    return head + style + b"\xff\x5c" + b"\0\x13\x40" + b"\x80" * 16 + b"\xff\x90\0\x0a\0\0\0\0\0\0\0\1\xff\x93\xff\xd9"


def jpeg(marker: int, rows: int, columns: int, *, precision: int = 16, components: int = 1, near: int = 0) -> bytes:
    body = struct.pack(">BHHB", precision, rows, columns, components) + b"\1\x11\0" * components
    start = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, near, 0, 0)
    return (
        b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body + start + b"\0" * 50 + b"\xff\xd9"
    )


def segments(count: int, *offsets: int, more: bytes = b"\x80" * 100) -> bytes:
    return struct.pack("<16L", count, *offsets, *[0] * (15 - len(offsets))) + more


SAYS_OTHERWISE = {
    "RLE: 15 segments": (RLE, segments(15, *range(64, 79))),
    "RLE: 4 billion segments": (RLE, segments(0xFFFFFFFF, 64, 100)),
    "RLE: one segment": (RLE, segments(1, 64)),
    "JPEG 2000: 60000 × 60000": (J2K, size_marker(60_000, 60_000)),
    "JPEG 2000: 4 billion squared": (J2K, size_marker(0xFFFFFFFF, 0xFFFFFFFF)),
    "JPEG 2000: 3 components": (J2K, size_marker(SIDE, SIDE, components=3)),
    "JPEG 2000: 16384 components": (J2K, size_marker(SIDE, SIDE, components=16_384)),
    "JPEG 2000: 38 bits": (J2K, size_marker(SIDE, SIDE, depth=37 | 0x80)),
    "JPEG 2000: unsigned": (J2K, size_marker(SIDE, SIDE, depth=11)),
    "JPEG 2000: irreversible": (J2K, size_marker(SIDE, SIDE, wavelet=0)),
    "JPEG: 65535 × 65535": (JPEG, jpeg(0xC3, 65_535, 65_535)),
    "JPEG: 64 × 63": (JPEG, jpeg(0xC3, SIDE, SIDE - 1)),
    "JPEG: no height": (JPEG, jpeg(0xC3, 0, SIDE)),
    "JPEG: 4 components": (JPEG, jpeg(0xC3, SIDE, SIDE, components=4)),
    "JPEG: 12 bits of 16 signed": (JPEG, jpeg(0xC3, SIDE, SIDE, precision=12)),
    "JPEG: lossy": (JPEG, jpeg(0xC1, SIDE, SIDE, precision=12)),
    "JPEG-LS: 65535 × 65535": (JPEG_LS, jpeg(0xF7, 65_535, 65_535)),
    "JPEG-LS: 17 bits": (JPEG_LS, jpeg(0xF7, SIDE, SIDE, precision=17)),
    "JPEG-LS: lossy": (JPEG_LS, jpeg(0xF7, SIDE, SIDE, near=3)),
}
DAMAGED = {
    "two bytes": (RLE, b"\0\0"),
    "RLE: header cut off": (RLE, segments(2, 64, 100)[:60]),
    "RLE: offset 4 GiB": (RLE, segments(2, 64, 0xFFFFFFFF)),
    "RLE: offsets backwards": (RLE, segments(2, 100, 64)),
    "RLE: too short": (RLE, segments(2, 64, 100)),
    "RLE: too long": (RLE, segments(2, 64, 100_000, more=b"\x81\1" * 100_000)),
    "JPEG 2000: a million tiles": (J2K, size_marker(1024, 1024, tile=1)),
    "JPEG 2000: no image": (J2K, size_marker(SIDE, SIDE)),
    "JPEG 2000: boxes": (J2K, b"\0\0\0\x0cjP  \r\n\x87\n" + size_marker(SIDE, SIDE)),
    "JPEG 2000: cut off": (J2K, size_marker(SIDE, SIDE)[:-2]),
    "JPEG: no frame": (JPEG, b"\xff\xd8\xff\xda\0\x08\1\1\0\1\0\0\xff\xd9"),
    "JPEG: no image": (JPEG, jpeg(0xC3, SIDE, SIDE)),
    "JPEG: zeros": (JPEG, bytes(5000)),
    "JPEG: fill": (JPEG, b"\xff\xd8" + b"\xff" * 5000),
    "JPEG-LS: no image": (JPEG_LS, jpeg(0xF7, SIDE, SIDE)),
    "JPEG-LS: no scan": (JPEG_LS, jpeg(0xF7, SIDE, SIDE)[:24]),
}


@pytest.mark.parametrize(("syntax", "data"), SAYS_OTHERWISE.values(), ids=SAYS_OTHERWISE.keys())
def test_an_image_that_contradicts_its_header(frame: Callable[..., Frame], syntax: str, data: bytes) -> None:
    needs(DECODERS[syntax][0].module) if syntax != RLE else None
    found = refusal(frame(value_of(data), syntax))
    assert found.code is Code.UNREADABLE
    assert "header says" in found.reason


@pytest.mark.parametrize(("syntax", "data"), DAMAGED.values(), ids=DAMAGED.keys())
def test_an_image_that_is_damaged(frame: Callable[..., Frame], syntax: str, data: bytes) -> None:
    needs(DECODERS[syntax][0].module) if syntax != RLE else None
    fields = {"rows": 1024, "columns": 1024} if "million" in repr(data) or b"\0\0\4\0\0\0\4\0" in data else {}
    found = refusal(frame(value_of(data), syntax, **fields))
    assert found.code is Code.UNREADABLE
    assert "header says" not in found.reason


@pytest.mark.parametrize("tail", ["5", "4.57", "4.70", "4.80", "4.90"])
def test_real_slices_cut_short_but_well_wrapped(test_data: Path, frame: Callable[..., Frame], tail: str) -> None:
    """The items are right, the last marker is there: only the image is not whole."""
    (header,) = scan(test_data / "ct_syntaxes" / f"{ROOT}{tail}.dcm").headers
    for decoder in DECODERS[header.syntax][:1]:
        if decoder.module:
            needs(decoder.module)
    ds = pydicom.dcmread(header.path)
    (data,) = pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)
    for keep in (400, len(data) // 2, len(data) - 3000):
        cut = frame(value_of(data[:keep] + b"\xff\xd9"), header.syntax, rows=512, columns=512)
        assert refusal(cut).code is Code.UNREADABLE


def test_more_bytes_than_any_image_has(frame: Callable[..., Frame]) -> None:
    assert refusal(frame(bytes(codec.SOURCE_BYTES + 5000), RLE)).code is Code.UNREADABLE


def test_a_file_that_shrinks_or_goes(frame: Callable[..., Frame]) -> None:
    packed = frame(value_of(encode_rle(picture(16, 16, True), 16)), RLE)
    packed.header.path.write_bytes(packed.header.path.read_bytes()[:-20])
    assert "shorter" in refusal(packed).reason
    packed.header.path.unlink()
    assert "opened" in refusal(packed).reason


# Decoders that fail


@pytest.fixture
def own_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Decoder]:
    """A decoder with a body of one's own, in place of those of RLE."""
    limits = supervise.Limits(memory_bytes=64 * 2**20, cpu_s=1, wall_s=2.0)
    pool = supervise.Pool(source_bytes=codec.SOURCE_BYTES, target_bytes=codec.FRAME_BYTES, limits=limits)
    monkeypatch.setattr(codec, "_pool", lambda: pool)
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, body: str) -> Decoder:
        (tmp_path / f"{name}.py").write_text(f"import os, signal, time\ndef task():\n    {body}\n    return run\n")
        decoder = Decoder(task=f"{name}:task", name=name)
        monkeypatch.setitem(DECODERS, RLE, (decoder, *DECODERS[RLE]))
        return decoder

    yield install
    pool.close()


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("crashing", "run = lambda a, s, t: os.kill(os.getpid(), signal.SIGSEGV)", "make their decoder fail"),
        ("hanging", "run = lambda a, s, t: time.sleep(60)", "more time or memory"),
        ("hungry", "run = lambda a, s, t: bytearray(2**32)", "more time or memory"),
        ("failing", "run = lambda a, s, t: 1 / 0", "damaged"),
    ],
)
def test_what_a_decoder_does_ends_in_a_refusal(
    frame: Callable[..., Frame], own_decoder: Callable[..., Decoder], name: str, body: str, words: str
) -> None:
    own_decoder(name, body)
    value = value_of(encode_rle(picture(16, 16, True), 16))
    found = refusal(*[frame(value, RLE) for _ in range(5)])
    assert found.code is Code.UNREADABLE
    assert words in found.reason


def test_a_decoder_that_cannot_start_gives_way_to_the_next(
    frame: Callable[..., Frame], own_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = own_decoder("broken", "import a_library_that_is_not_there")
    image = picture(16, 16, True)
    packed = frame(value_of(encode_rle(image, 16)), RLE)
    assert np.array_equal(decoded(packed), image)
    monkeypatch.setitem(DECODERS, RLE, (decoder,))
    assert refusal(packed).code is Code.SYNTAX_UNSUPPORTED
    monkeypatch.setitem(DECODERS, RLE, (Decoder(task="rle", name="x", module="a_library_that_is_not_there"),))
    with pytest.raises(Refusal) as caught:
        codec.refuse_unsupported(RLE)
    assert caught.value.code is Code.SYNTAX_UNSUPPORTED


def test_the_pool_outlives_every_kind_of_damage(frame: Callable[..., Frame]) -> None:
    image = picture(16, 16, True)
    good = value_of(encode_rle(image, 16))
    for syntax, data in [*SAYS_OTHERWISE.values(), *DAMAGED.values()]:
        if syntax == RLE:
            refusal(frame(good, RLE), frame(value_of(data), syntax), frame(good, RLE))
        for pid in codec._pool().children[:1]:
            os.kill(pid, signal.SIGKILL)
        assert np.array_equal(decoded(frame(good, RLE)), image)


@pytest.mark.parametrize("syntax", ENCODERS)
def test_how_much_slower_the_children_are(frame: Callable[..., Frame], syntax: str) -> None:
    """Says, decides nothing: 40 slices of 512 × 512 through pydicom in this process, and in the children."""
    from pydicom.pixels import get_decoder

    image = picture(16, 12, False, side=512)
    value = value_of(ENCODERS[syntax](image, 12))
    form = fields_of("12 bit unsigned")
    frames = [frame(value, syntax, rows=512, columns=512, **form) for _ in range(40)]
    inside = in_process(get_decoder(UID(syntax)), value, form, repeats=4) * 10
    codec.decode_frames(frames)
    start = time.perf_counter()
    codec.decode_frames(frames)
    children = time.perf_counter() - start
    assert all(np.array_equal(f.out, image) for f in frames)
    each, ours = inside * 1e3 / len(frames), children * 1e3 / len(frames)
    print(f"{syntax}: {each:.1f} ms a slice in process, {ours:.1f} ms in children, {inside / children:.2f}×")


def in_process(decoder: Any, value: bytes, form: dict[str, Any], repeats: int) -> float:
    names: Sequence[str] = ("bits_allocated", "bits_stored")
    options = {name: form[name] for name in names} | {"pixel_representation": form["representation"]}
    start = time.perf_counter()
    for _ in range(repeats):
        decoder.as_array(
            value[: -len(DELIMITER)],
            index=0,
            raw=True,
            rows=512,
            columns=512,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            pixel_keyword="PixelData",
            **options,
        )
    return time.perf_counter() - start
