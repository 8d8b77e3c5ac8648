"""The decoders, one task each. Their libraries are imported in the child only.

Each task decodes one frame: source is what :func:`edgehem.sandbox.codestream.joined` takes, arguments are a
:class:`edgehem.sandbox.codestream.Form`, and the result is the pixels row by row, Bits Allocated bits each, in
little-endian order.
"""

from __future__ import annotations

import os
from typing import Any

from edgehem.sandbox.codestream import (
    CONTRADICTION,
    DAMAGED,
    Form,
    check_jpeg,
    check_jpeg_2000,
    check_jpeg_ls,
    joined,
    rle_segments,
)
from edgehem.sandbox.worker import Run, TaskError


def openjpeg() -> Run:
    """JPEG 2000 and HTJ2K, by OpenJPEG (pylibjpeg-openjpeg)."""
    from openjpeg.utils import decode_pixel_data

    def run(arguments: bytes, source: memoryview, target: memoryview) -> None:
        form = Form.unpack(arguments)
        data = joined(source, bare=form.bare)
        precision = check_jpeg_2000(data, form)
        _place(decode_pixel_data(data, version=2), precision, form, target)

    return run


def charls() -> Run:
    """JPEG-LS, by CharLS (pyjpegls)."""
    from jpeg_ls import decode_pixel_data

    def run(arguments: bytes, source: memoryview, target: memoryview) -> None:
        form = Form.unpack(arguments)
        data = joined(source, bare=form.bare)
        precision = check_jpeg_ls(data, form)
        pixels, _ = decode_pixel_data(data)
        _place(pixels, precision, form, target)

    return run


def gdcm() -> Run:
    """JPEG lossless, by GDCM (python-gdcm)."""
    import gdcm as library

    complaints = _Complaints()

    def run(arguments: bytes, source: memoryview, target: memoryview) -> None:
        form = Form.unpack(arguments)
        data = joined(source, bare=form.bare)
        precision = check_jpeg(data, form)
        fragment = library.Fragment()
        fragment.SetByteStringValue(data)
        fragments = library.SequenceOfFragments.New()
        fragments.AddFragment(fragment)
        element = library.DataElement(library.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = library.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((form.columns, form.rows, 1))
        image.SetDataElement(element)
        photometric = library.PhotometricInterpretation
        image.SetPhotometricInterpretation(photometric(photometric.GetPIType("MONOCHROME2")))
        syntax = library.TransferSyntax
        image.SetTransferSyntax(syntax(syntax.GetTSType("1.2.840.10008.1.2.4.57")))
        container = 8 if precision <= 8 else 16
        image.SetPixelFormat(library.PixelFormat(1, container, precision, precision - 1, 0))
        buffer: Any = image.GetBuffer()
        if complaints.heard():
            raise TaskError(DAMAGED)
        _place(buffer.encode("utf-8", "surrogateescape"), precision, form, target)

    return run


def rle() -> Run:
    """RLE, by pylibjpeg-rle."""
    from rle.rle import decode_frame

    def run(arguments: bytes, source: memoryview, target: memoryview) -> None:
        form = Form.unpack(arguments)
        data = joined(source, bare=form.bare)
        rle_segments(data, form)
        _place(decode_frame(data, form.pixels, form.allocated, "<"), form.allocated, form, target)

    return run


def rle_plain() -> Run:
    """RLE without a library: slow, and always there."""

    def run(arguments: bytes, source: memoryview, target: memoryview) -> None:
        form = Form.unpack(arguments)
        segments = rle_segments(joined(source, bare=form.bare), form)
        width = len(segments)
        for index, segment in enumerate(segments):
            target[width - 1 - index :: width] = _unpack_bits(segment, form.pixels)

    return run


class _Complaints:
    """What a library writes to standard error.

    The JPEG library within GDCM fills up what is missing of an image and only says so there ("premature end of data
    segment"). No such image is taken.
    """

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        # A library that has much to say must not wait for somebody to read it.
        os.set_blocking(self._reader, False)
        os.set_blocking(2, False)

    def heard(self) -> bool:
        """Whether there were any since the last time."""
        try:
            return bool(os.read(self._reader, 2**20))
        except BlockingIOError:
            return False


def _unpack_bits(segment: bytes, count: int) -> bytes:
    """Exactly ``count`` bytes out of an RLE segment (PS3.5 G.3.2); nothing but padding may follow."""
    out = bytearray()
    position = 0
    end = len(segment)
    while len(out) < count:
        if position + 1 >= end:
            raise TaskError(DAMAGED)
        header = segment[position]
        if header < 128:
            stop = position + header + 2
            if stop > end:
                raise TaskError(DAMAGED)
            out += segment[position + 1 : stop]
            position = stop
        elif header > 128:
            out += segment[position + 1 : position + 2] * (257 - header)
            position += 2
        else:
            position += 1
    if len(out) != count or segment[position:].strip(b"\0\x80"):
        raise TaskError(DAMAGED)
    return bytes(out)


def _place(pixels: bytes | bytearray, precision: int, form: Form, target: memoryview) -> None:
    """Put decoded pixels where the parent takes them from, in as many bytes each as are allocated."""
    width = form.allocated // 8
    have = 1 if precision <= 8 else 2
    if len(pixels) != form.pixels * have:
        raise TaskError(DAMAGED)
    if have == width:
        target[:] = pixels
    elif have < width:
        target[0::2] = pixels
        target[1::2] = bytes(len(pixels))
    else:
        raise TaskError(CONTRADICTION)
