"""Compressed slices, decoded in disposable children by decoders that are named here, one order for everybody.

Third-party decoders crash, loop and allocate on bytes made for it; none runs in this process, and none is chosen
because it happens to be installed. What they are given has been looked at first (:mod:`edgehem.sandbox.codestream`).

References
----------
DICOM PS3.5 section 10 and annex A.4 (transfer syntaxes).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgehem.dicom.header import Header
from edgehem.errors import Code, Refusal

if TYPE_CHECKING:
    from edgehem.supervise import Cause, Pool

Int16 = npt.NDArray[np.int16]

FRAME_BYTES = 2 * 1024**2
"""A decoded frame at most: 1024 × 1024 pixels of 16 bits (input gates)."""
SOURCE_BYTES = 2 * FRAME_BYTES + 2**16
"""A compressed frame at most: compression may fail to compress, but not by more than its own headers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder:
    """A decoder that is trusted with a transfer syntax.

    Parameters
    ----------
    task : str
        Where its factory is, ``module:factory`` (:mod:`edgehem.sandbox.codecs`).
    name : str
        The distribution it comes with.
    module : str, optional
        What it imports; empty where it needs nothing.
    """

    task: str
    name: str
    module: str = ""

    @property
    def installed(self) -> bool:
        """Whether what it needs is there. Nothing is imported here: that is left to the child."""
        return not self.module or find_spec(self.module) is not None


_IN = "edgehem.sandbox.codecs:"
_OPENJPEG = Decoder(task=_IN + "openjpeg", name="pylibjpeg-openjpeg", module="openjpeg")
_CHARLS = Decoder(task=_IN + "charls", name="pyjpegls", module="jpeg_ls")
_GDCM = Decoder(task=_IN + "gdcm", name="python-gdcm", module="gdcm")
_RLE = Decoder(task=_IN + "rle", name="pylibjpeg-rle", module="rle")
_RLE_PLAIN = Decoder(task=_IN + "rle_plain", name="edgehem's own")

DECODERS: dict[str, tuple[Decoder, ...]] = {
    "1.2.840.10008.1.2.5": (_RLE, _RLE_PLAIN),
    "1.2.840.10008.1.2.4.57": (_GDCM,),
    "1.2.840.10008.1.2.4.70": (_GDCM,),
    "1.2.840.10008.1.2.4.80": (_CHARLS,),
    "1.2.840.10008.1.2.4.81": (_CHARLS,),
    "1.2.840.10008.1.2.4.90": (_OPENJPEG,),
    "1.2.840.10008.1.2.4.91": (_OPENJPEG,),
    "1.2.840.10008.1.2.4.201": (_OPENJPEG,),
    "1.2.840.10008.1.2.4.202": (_OPENJPEG,),
    "1.2.840.10008.1.2.4.203": (_OPENJPEG,),
}
"""Who decodes what, the first that is installed and works. Others could do some of it too and are passed over: GDCM's
copies of OpenJPEG (2.3) and CharLS (2.0) are years behind."""

LOSSY = frozenset(
    "1.2.840.10008.1.2." + tail
    for tail in ("4.81", "4.91", "4.203")  # JPEG-LS near-lossless, JPEG 2000, HTJ2K
)
"""Lossy syntaxes that decode to values near the original. The 8- and 12-bit lossy JPEGs (4.50, 4.51) were off by more
than 2,000 HU in tests, and 4.53 and 4.55 do not decode: they are refused."""
LOSSLESS = frozenset(DECODERS) - LOSSY


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One compressed image and where its pixels go.

    Parameters
    ----------
    header : Header
        With the rows, columns, depth and sign that the image must have. Its ``pixel_offset`` to ``size`` hold the
        whole value of Pixel Data; or, of a frame among many (``frame`` from 0), its fragments alone.
    out : int16 array [Y, X], contiguous
        Takes the stored values (patterns of Bits Allocated bits; 8-bit ones are widened).
    """

    header: Header
    out: Int16


def refuse_unsupported(syntax: str) -> None:
    """Make sure that a compressed transfer syntax is one to trust, and can be decoded here.

    Raises
    ------
    Refusal
        SYNTAX_UNSUPPORTED.
    """
    if syntax not in DECODERS:
        raise Refusal(
            Code.SYNTAX_UNSUPPORTED,
            "The images are compressed in a way that does not keep reliable values; send them uncompressed.",
        )
    if not any(decoder.installed for decoder in DECODERS[syntax]):
        raise _no_decoder()


def decode_frames(frames: Sequence[Frame]) -> None:
    """Decode compressed images, as many at a time as there are CPUs.

    Parameters
    ----------
    frames : sequence of Frame
        Their ``out`` is filled.

    Raises
    ------
    Refusal
        UNREADABLE if the bytes do not decode to images of the announced size and depth within the limits;
        SYNTAX_UNSUPPORTED if no decoder can be started.
    """
    for syntax in sorted({frame.header.syntax for frame in frames}):
        _decode_alike(syntax, [frame for frame in frames if frame.header.syntax == syntax])


def _decode_alike(syntax: str, frames: Sequence[Frame]) -> None:
    """Decode images of one transfer syntax."""
    from edgehem.sandbox.codestream import CONTRADICTION
    from edgehem.supervise import ChildLostError, ChildUnavailableError, Job, JobFailedError

    narrow = [_narrow(frame) for frame in frames]
    jobs = [
        Job(
            arguments=_form(frame),
            load=partial(_load, frame.header),
            out=(frame.out if small is None else small).reshape(-1).view(np.uint8).data,
        )
        for frame, small in zip(frames, narrow, strict=True)
    ]
    for decoder in DECODERS[syntax]:
        if not decoder.installed:
            continue
        try:
            _pool().run(decoder.task, jobs)
        except ChildUnavailableError:
            continue
        except JobFailedError as error:
            if error.detail == CONTRADICTION:
                reason = "The compressed pixels of an image are not of the size, depth or kind that its header says."
            else:
                reason = "The compressed pixels of an image are damaged."
            raise Refusal(Code.UNREADABLE, reason) from None
        except ChildLostError as error:
            raise Refusal(Code.UNREADABLE, _why_lost(error.cause)) from None
        break
    else:
        raise _no_decoder()
    for frame, small in zip(frames, narrow, strict=True):
        if small is not None:
            frame.out[...] = small
        elif sys.byteorder != "little":
            frame.out.byteswap(inplace=True)


def _no_decoder() -> Refusal:
    return Refusal(
        Code.SYNTAX_UNSUPPORTED,
        "The images are compressed, and no decoder for this compression is installed and works here; "
        "send them uncompressed.",
    )


def _why_lost(cause: Cause) -> str:
    if cause.value in ("cpu", "time", "memory"):
        return "Decoding an image took more time or memory than any real one needs, and was stopped."
    if cause.value == "outside":
        return "The decoder of an image was ended from outside, twice; the machine may be short of memory."
    return "The compressed pixels of an image make their decoder fail; it was stopped."


def _narrow(frame: Frame) -> npt.NDArray[np.int8] | npt.NDArray[np.uint8] | None:
    """Where 8-bit pixels go first; None for 16-bit ones, which go where they belong."""
    if frame.header.bits_allocated != 8:
        return None
    if frame.header.representation:
        return np.empty(frame.out.shape, np.int8)
    return np.empty(frame.out.shape, np.uint8)


def _form(frame: Frame) -> bytes:
    from edgehem.sandbox.codestream import Form

    header = frame.header
    return Form(
        rows=header.rows or 0,
        columns=header.columns or 0,
        allocated=header.bits_allocated or 0,
        stored=header.bits_stored or 0,
        signed=header.representation == 1,
        lossless=header.syntax in LOSSLESS,
        bare=header.frame >= 0,
    ).pack()


def _load(header: Header, source: memoryview) -> int:
    """Read a frame's bytes from its file into the memory of a child. Returns their number."""
    length = header.size - header.pixel_offset
    if length > len(source):
        raise Refusal(Code.UNREADABLE, "The pixel data of an image does not have the announced length.")
    target = source[:length]
    try:
        with header.path.open("rb", buffering=0) as stream:
            stream.seek(header.pixel_offset)
            while target and (count := stream.readinto(target)):
                target = target[count:]
    except OSError:
        raise Refusal(Code.UNREADABLE, "A file could not be opened or read from its disk.") from None
    if target:
        raise Refusal(Code.UNREADABLE, "A file became shorter while it was read.")
    return length


@cache
def _pool() -> Pool:
    from edgehem.supervise import Pool

    return Pool(source_bytes=SOURCE_BYTES, target_bytes=FRAME_BYTES)
