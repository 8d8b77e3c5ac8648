"""A checkpoint's file: opened as plain data, its checksums verified, nothing in it executed."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from edgehem.errors import MissingExtraError, UsageError

MAX_BYTES = 8 * 2**30
"""Largest checkpoint: an ONNX file ends at 2 GiB, and training keeps three more copies (two moments, an average)."""
HEADER_BYTES = 16 * 2**20
"""Largest header of a safetensors file: about 100,000 tensors."""
SHOWN = 8
"""Names listed in a message; the rest are counted."""


def opened(path: Path) -> tuple[str, bytes, Any]:
    """Open a file by its content, whatever its name.

    Returns
    -------
    format : str
    data : bytes
        The file's: what is hashed is what was loaded.
    content : object
        What was saved, as plain data.

    Raises
    ------
    UsageError
        If it is missing, empty, too large, damaged, no checkpoint, or needs code to be read.
    MissingExtraError
        For safetensors without that package.
    """
    data = _content(path)
    if len(data) >= 10 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_BYTES:
        return "safetensors", data, _safetensors(data, path.name)
    kind, content = _torch(data, path.name)
    return kind, data, content


def listed(items: Iterable[str], separator: str = "; ") -> str:
    """Some of the items, and how many more there are."""
    every = list(items)
    more = len(every) - SHOWN
    return separator.join(every[:SHOWN]) + (f"{separator}and {more} more" if more > 0 else "")


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path.name} has {size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} are read")
    if not size:
        raise UsageError(f"{path.name} is empty")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror}") from error


def _torch(data: bytes, name: str) -> tuple[str, Any]:
    """What torch saved, as plain data."""
    zipped = data[:4] == b"PK\x03\x04"
    if zipped:
        _refuse_damaged(data, name)
    elif data[:1] != b"\x80":  # what a pickle of any protocol since 2 begins with
        raise UsageError(f"{name} is no checkpoint of torch and no safetensors file{_guess(data)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickles of other protocols, storages of old versions
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, AttributeError) as error:
        raise UsageError(_remedy(data, name, error)) from error
    except Exception as error:  # torch raises whatever its readers meet
        raise UsageError(
            f"{name} is damaged, or no checkpoint: torch cannot read it ({type(error).__name__})"
        ) from error
    return ("torch" if zipped else "torch, before 1.6"), content


def _refuse_damaged(data: bytes, name: str) -> None:
    """torch checks no sums: a flipped bit in a weight would load without a word."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise UsageError(f"{name} unpacks to more than {MAX_BYTES >> 30} GiB")
            if any("/code/" in f"/{entry.filename}" or entry.filename.endswith("constants.pkl") for entry in entries):
                raise UsageError(
                    f"{name} is a TorchScript or exported program, which is code; save its weights with "
                    "torch.save(model.state_dict(), path)"
                )
            spoilt = archive.testzip()
    except UsageError:
        raise
    except Exception as error:  # zipfile has an error of its own for some damage, and whatever it meets for the rest
        raise UsageError(f"{name} is damaged or cut short ({type(error).__name__}: {error})") from error
    if spoilt is not None:
        raise UsageError(f"{name} is damaged: the checksum of {spoilt} is wrong; copy it again")


def _remedy(data: bytes, name: str, error: Exception) -> str:
    """Why weights_only refused a file, and what to do where it was trained."""
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception:  # the older format cannot be asked
        classes = []
    held = f"it holds {listed(sorted(classes), ', ')}" if classes else str(error).strip().partition("\n")[0][:200]
    return (
        f"{name} is no state dict that can be loaded safely: {held}. Reading these would run code of the file. Where "
        "it was made, save the weights alone: torch.save(model.state_dict(), path)"
    )


def _guess(data: bytes) -> str:
    for magic, words in {b"\x89HDF": "an HDF5 file of Keras", b"GGUF": "a GGUF file", b"\x1f\x8b": "gzip"}.items():
        if data.startswith(magic):
            return f"; it looks like {words}"
    return "; give an ONNX file as a graph, not as a checkpoint" if data[:1] == b"\x08" else ""


def _safetensors(data: bytes, name: str) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; the package checks offsets and sizes against the header."""
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_BYTES:
        raise UsageError(f"{name} has a header of {length} bytes; at most {HEADER_BYTES} are read")
    if length + 8 > len(data):
        raise UsageError(f"{name} is cut short: its header alone should have {length} bytes")
    try:
        from safetensors.torch import load as unpack
    except ImportError as error:
        raise MissingExtraError("reading safetensors files", "export") from error
    try:
        state: dict[str, torch.Tensor] = unpack(data)
    except Exception as error:  # the package has one exception, json and torch their own
        raise UsageError(f"{name} is damaged or cut short: {str(error).partition(chr(10))[0][:200]}") from error
    return state
