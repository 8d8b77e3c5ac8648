"""Inference engines behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgehem.errors import BackendError

Array = npt.NDArray[Any]

F32, BF16, F16 = "f32", "bf16", "f16"
"""What the float operators of a graph can be computed in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to open a graph.

    Parameters
    ----------
    arithmetic : str
        What float operators are computed in: ``f32``, or one of what else :meth:`Backend.arithmetics` names. Inputs
        and outputs stay float32; operators that the graph quantises stay integer.
    threads : int, optional
        By default the CPUs this process may use.
    cache : Path, optional
        Where the engine may keep what it compiled, for the next start: a folder of this user alone (mode 0700). By
        default nothing is kept. An engine that has nothing to keep ignores it.
    optimise : bool
        False runs the graph operator by operator, as it is written: slow, and what an optimised graph is checked
        against.

    Raises
    ------
    ValueError
    """

    arithmetic: str = F32
    threads: int | None = None
    cache: Path | None = None
    optimise: bool = True

    def __post_init__(self) -> None:
        if self.arithmetic not in (F32, BF16, F16):
            raise ValueError(f"arithmetic {self.arithmetic!r} is none of {F32}, {BF16}, {F16}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads cannot run a graph")


DEFAULT = Options()


class Session(Protocol):
    """A graph that is ready to run. Several threads may call it at once."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph: input name to array, output name to array.

        Inputs are not written to; outputs belong to the caller. Raises BackendError.
        """
        ...


class Backend(Protocol):
    """An engine.

    ``name`` is what ``--backend`` takes. ``missing`` says why the engine cannot be used here, or is empty; it imports
    the engine. ``version`` does not, and is empty where the engine is not installed.
    """

    @property
    def name(self) -> str: ...

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of an INT8 graph, the one that suits the engine first."""
        ...

    def missing(self) -> str: ...

    def version(self) -> str: ...

    def arithmetics(self) -> tuple[str, ...]:
        """What float operators can be computed in here, f32 first. Raises BackendError."""
        ...

    def open(self, graph: bytes, options: Options = ...) -> Session:
        """Load an ONNX graph. Raises BackendError."""
        ...


def engines() -> list[Backend]:
    """Every engine edgehem knows, in the order ``auto`` prefers them where nothing was measured."""
    from edgehem.backends.onnxruntime import OnnxRuntime
    from edgehem.backends.openvino import OpenVino

    return [OnnxRuntime(), OpenVino()]


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
    if name != "auto" and name not in (names := [engine.name for engine in known]):
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(names)}")
    passed = []
    for engine in known:
        if name not in ("auto", engine.name):
            continue  # not even looked at: that would load its library
        if not (reason := engine.missing()):
            return engine
        passed.append(f"{engine.name}: {reason}")
    raise BackendError(f"no inference engine for {name!r} ({'; '.join(passed)})")
