"""Compressed slices, decoded with what pydicom finds installed.

References
----------
DICOM PS3.5 section 10 and annex A.4 (transfer syntaxes).
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.dicom.header import Header
from edgehem.errors import Code, Refusal

LOSSLESS = frozenset(
    "1.2.840.10008.1.2." + tail
    for tail in ("5", "4.57", "4.70", "4.80", "4.90", "4.201", "4.202")  # RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K
)
LOSSY = frozenset(
    "1.2.840.10008.1.2." + tail
    for tail in ("4.81", "4.91", "4.203")  # JPEG-LS near-lossless, JPEG 2000, HTJ2K
)
"""Lossy syntaxes that decode to values near the original. The 8- and 12-bit lossy JPEGs (4.50, 4.51) were off by more
than 2,000 HU in tests, and 4.53 and 4.55 do not decode: they are refused."""


def refuse_unsupported(syntax: str) -> None:
    """Make sure that a compressed transfer syntax is one to trust, and can be decoded here.

    Raises
    ------
    Refusal
        SYNTAX_UNSUPPORTED.
    """
    if syntax not in LOSSLESS | LOSSY:
        raise Refusal(
            Code.SYNTAX_UNSUPPORTED,
            "The images are compressed in a way that does not keep reliable values; send them uncompressed.",
        )
    if not _available(syntax):
        raise Refusal(
            Code.SYNTAX_UNSUPPORTED,
            "The images are compressed, and no decoder for this compression is installed; send them uncompressed.",
        )


def decode_frame(header: Header, encapsulated: bytearray) -> npt.NDArray[Any]:
    """Decode the only frame of a compressed image.

    Parameters
    ----------
    header : Header
    encapsulated : bytearray
        The value of Pixel Data: items (basic offset table, fragments) up to the sequence delimiter.

    Returns
    -------
    integer array [Y, X] of Bits Allocated bits, stored values

    Raises
    ------
    Refusal
        UNREADABLE if the bytes do not decode to one image of the announced size.
    """
    from pydicom.pixels.decoders.base import get_decoder

    refusal = Refusal(Code.UNREADABLE, "The compressed pixels of an image are damaged.")
    try:
        with warnings.catch_warnings():
            # pydicom warns of bytes it could only guess at. No guess is taken, and no warning, which may quote the
            # file, leaves this function.
            warnings.simplefilter("error")
            decoder: Any = get_decoder(header.syntax)
            array, _ = decoder.as_array(
                bytes(encapsulated),
                index=0,
                raw=True,
                rows=header.rows,
                columns=header.columns,
                number_of_frames=1,
                samples_per_pixel=1,
                photometric_interpretation=header.photometric,
                bits_allocated=header.bits_allocated,
                bits_stored=header.bits_stored,
                pixel_representation=header.representation,
                pixel_keyword="PixelData",
            )
    except MemoryError:
        raise
    except Exception:
        # Decoders raise whatever their authors chose; every one of them means the same here.
        raise refusal from None
    pixels = np.ascontiguousarray(array)
    if pixels.shape != (header.rows, header.columns) or pixels.dtype.itemsize * 8 != header.bits_allocated:
        raise refusal
    return pixels


@cache
def _available(syntax: str) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    return bool(get_decoder(syntax).is_available)
