"""Inference engines behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgehem.errors import BackendError

if TYPE_CHECKING:
    from edgehem.kernels.types import Stack, Target, Windows

Array = npt.NDArray[Any]

F32, TF32, BF16, F16 = "f32", "tf32", "bf16", "f16"
"""What the float operators of a graph can be computed in."""

OPEN_S = 60.0
"""An engine that has not compiled a graph for a CPU by then never will: what was seen takes 0.1 to 2 s, or hangs."""

BUILD_S = 1800.0
"""To build one plan for a GPU. Minutes are usual on a Jetson."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Leave to make a plan, and what may be spent on it. Engines that need no plan ignore it.

    Parameters
    ----------
    workspace_mib : int
        Device memory for the scratch space of the network's operators.
    level : int, optional
        How long the builder looks for a faster plan, 0 to 5; TensorRT's own default (3) if not given.
    say : callable, optional
        Gets a line for each step: a build takes minutes.
    """

    workspace_mib: int = 1024
    level: int | None = None
    say: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.workspace_mib < 1:
            raise ValueError(f"{self.workspace_mib} MiB of workspace: 1 or more are needed")
        if self.level is not None and not 0 <= self.level <= 5:
            raise ValueError(f"optimisation level {self.level}: 0 to 5 are known")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to open a graph.

    Parameters
    ----------
    arithmetic : str
        What float operators are computed in: ``f32``, or one of what else :meth:`Backend.arithmetics` names; ``f16``
        for a graph that is written in float16. Inputs and outputs are as the graph declares them; operators that the
        graph quantises stay integer.
    threads : int, optional
        By default the CPUs this process may use.
    cache : Path, optional
        Where the engine may keep what it compiled, for the next start: a folder of this user alone (mode 0700). By
        default nothing is kept. An engine that has nothing to keep ignores it.
    optimise : bool
        False runs the graph operator by operator, as it is written: slow, and what an optimised graph is checked
        against.
    bundle : str
        SHA-256 of the manifest of the graph's bundle: a plan is qualified for one bundle, and serves no other.
    build : Build, optional
        Make the plan now, where the engine needs one. By default it never does: without a plan that was made and
        qualified before, opening fails.

    Raises
    ------
    ValueError
    """

    arithmetic: str = F32
    threads: int | None = None
    cache: Path | None = None
    optimise: bool = True
    bundle: str = ""
    build: Build | None = None

    def __post_init__(self) -> None:
        if self.arithmetic not in (F32, TF32, BF16, F16):
            raise ValueError(f"arithmetic {self.arithmetic!r} is none of {F32}, {TF32}, {BF16}, {F16}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads cannot run a graph")


DEFAULT = Options()


class Session(Protocol):
    """A graph that is ready to run. Several threads may call it at once.

    A session that was opened from a plan which has to be qualified names it: ``plan``, see :mod:`edgehem.plans`.
    """

    def run(self, inputs: Mapping[str, Array]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph: input name to array, output name to array.

        Inputs are not written to; outputs belong to the caller. Raises BackendError.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTiming:
    """What a device did in one study, by its own clock, in milliseconds.

    Parameters
    ----------
    preprocess_ms : float
        Slices up, and the preprocessing kernel.
    infer_ms : float
        The other inputs up, and the engine.
    fetch_ms : float
        Outputs down.
    """

    preprocess_ms: float
    infer_ms: float
    fetch_ms: float


@runtime_checkable
class DeviceSession(Protocol):
    """A session on a device where edgehem's own kernels run too: the tensor never leaves it."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, npt.NDArray[np.float32]]: ...

    def analyse(
        self, stack: Stack, target: Target, windows: Windows, *, image: str, inputs: Mapping[str, Array]
    ) -> tuple[dict[str, npt.NDArray[np.float32]], DeviceTiming]:
        """Preprocess raw slices into the engine's input, and run it.

        Parameters
        ----------
        stack : Stack
            Raw slices with their geometry.
        target : Target
        windows : Windows
            Its dtype is replaced by that of the engine's input.
        image : str
            The input that the tensor goes to.
        inputs : dict of str to array
            The other inputs.

        Raises
        ------
        BackendError, BackendMemoryError, DeviceLostError
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
        """Forms of graph it takes (:class:`edgehem.bundle.Graph`), the one that suits it first."""
        ...

    @property
    def patience_s(self) -> float:
        """How long opening a graph may take where the engine does work."""
        ...

    @property
    def on_request(self) -> bool:
        """Whether it is used only where it is named, never by ``auto``."""
        ...

    @property
    def needs_plan(self) -> bool:
        """Whether it serves only plans that were made and qualified before; see :mod:`edgehem.plans`."""
        ...

    def missing(self) -> str: ...

    def version(self) -> str: ...

    def arithmetics(self) -> tuple[str, ...]:
        """What float32 operators can be computed in here, f32 first. Raises BackendError."""
        ...

    def open(self, graph: bytes, options: Options = ...) -> Session:
        """Load an ONNX graph. Raises BackendError."""
        ...


def engines() -> list[Backend]:
    """Every engine edgehem knows, in the order ``auto`` prefers them where nothing was measured."""
    from edgehem.backends.onnxruntime import OnnxRuntime
    from edgehem.backends.onnxruntime_gpu import OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeTensorRtRtx
    from edgehem.backends.openvino import OpenVino
    from edgehem.backends.tensorrt import TensorRt, TensorRtDla

    return [
        OnnxRuntime(),
        OpenVino(),
        TensorRt(),
        TensorRtDla(),
        OnnxRuntimeCuda(),
        OnnxRuntimeTensorRt(),
        OnnxRuntimeTensorRtRtx(),
    ]


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
