"""Inference engines behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgehem.errors import BackendError

Array = npt.NDArray[Any]


class Session(Protocol):
    """A graph that is ready to run."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph: input name to array, output name to array."""
        ...


class Backend(Protocol):
    """An engine.

    ``name`` is what ``--backend`` takes. ``missing`` says why the engine cannot be used here, or is empty.
    """

    @property
    def name(self) -> str: ...

    def missing(self) -> str: ...

    def open(self, graph: bytes) -> Session:
        """Load an ONNX graph. Raises BackendError."""
        ...


def engines() -> list[Backend]:
    """Every engine edgehem knows, in the order ``auto`` prefers them."""
    from edgehem.backends.onnxruntime import OnnxRuntime

    return [OnnxRuntime()]


def choose(name: str = "auto") -> Backend:
    """Choose an engine.

    Parameters
    ----------
    name : str
        An engine's name, or ``auto`` for the first that is installed.

    Raises
    ------
    BackendError
        If the named engine is unknown or absent (never another one instead), or none is installed.
    """
    known = engines()
    reasons = {engine.name: engine.missing() for engine in known}
    if name != "auto" and name not in reasons:
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(reasons)}")
    for engine in known:
        if name in ("auto", engine.name) and not reasons[engine.name]:
            return engine
    passed = "; ".join(f"{engine}: {reason}" for engine, reason in reasons.items() if name in ("auto", engine))
    raise BackendError(f"no inference engine for {name!r} ({passed})")
