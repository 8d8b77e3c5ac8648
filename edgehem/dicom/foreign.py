"""Files that are not DICOM and yet no strangers: told by their first bytes, whatever their names.

References
----------
NIfTI-1.1 and NIfTI-2 header definitions (nifti.nimh.nih.gov); RFC 1952 (gzip); PKWARE APPNOTE 6.3.10.
"""

from __future__ import annotations

import zlib
from enum import Enum

_NIFTI_1 = 348
_NIFTI_2 = 540
_GZIP = b"\x1f\x8b"


class Foreign(str, Enum):
    """A file format beside DICOM that belongs to the work with CT."""

    NIFTI = "nifti"
    ARCHIVE = "archive"
    """A zip file inside of what is read: never opened."""


def kind_of_bytes(head: bytes) -> Foreign | None:
    """What a file is by its first bytes (512 are enough), or None.

    Of a gzip file no more is inflated than a NIfTI header is long.
    """
    if head.startswith(b"PK\x03\x04"):
        return None if head[128:132] == b"DICM" else Foreign.ARCHIVE
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _NIFTI_1)
        except zlib.error:
            return None
    return Foreign.NIFTI if _is_nifti(head) else None


def _is_nifti(head: bytes) -> bool:
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size == _NIFTI_1 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return True
        if size == _NIFTI_2 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return True
    return False
