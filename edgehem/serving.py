"""What serves a bundle here: one engine with one graph, and another one for when a device fails.

With ``auto`` it is what ``edgehem compile`` measured as the fastest on this machine, else what the bundle names. An
engine that was asked for by name is never replaced. One that ``auto`` chose is, when it fails while a study waits:
by ONNX Runtime on the CPU, which is always there, and not quietly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem import device, kernels
from edgehem.backends import F16, DeviceSession, Options, Session, choose
from edgehem.backends.onnxruntime import OnnxRuntime
from edgehem.bundle import HALF_FORMS, Bundle, Graph
from edgehem.errors import BackendError, BundleError, DeviceLostError
from edgehem.preprocess import Placed, PreprocessSpec, fill
from edgehem.volume import Volume

_log = logging.getLogger(__name__)

Outputs = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Served:
    """An open graph.

    Parameters
    ----------
    engine : str
    graph : Graph
    arithmetic : str
    session : Session
    spec : PreprocessSpec
        As the graph reads it: one that is written in float16 takes its image so.
    inputs : dict of str to str
        Input kind to the graph's name.
    fallback : str
        Which engine this one stands in for, and why; empty if for none.
    """

    engine: str
    graph: Graph
    arithmetic: str
    session: Session
    spec: PreprocessSpec
    inputs: Mapping[str, str]
    fallback: str = ""
    _local: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def on_device(self) -> bool:
        """Whether edgehem's kernels run where the engine does, and the tensor never comes to the host."""
        return isinstance(self.session, DeviceSession)

    def tensor(self, volume: Volume, placed: Placed) -> npt.NDArray[np.generic] | None:
        """The image [1, Z, C, Y, X] for :meth:`answer`, in this thread's own buffer; None where the device makes it."""
        return None if self.on_device else fill(volume, placed, self.spec, out=self._buffer())

    def answer(self, volume: Volume, placed: Placed, tensor: npt.NDArray[np.generic] | None) -> tuple[Outputs, float]:
        """Run the graph.

        Returns
        -------
        outputs : dict of str to array
        preprocess_ms : float
            What of the time the device spent on preprocessing; 0 where the host did that before.

        Raises
        ------
        BackendError
        """
        made: dict[str, Any] = {"image": tensor, "valid": placed.valid}
        inputs = {name: made[kind] for kind, name in self.inputs.items() if made[kind] is not None}
        if tensor is None and isinstance(self.session, DeviceSession):
            outputs, timing = self.session.analyse(
                volume, placed.target, self.spec.kernel_windows, image=self.inputs["image"], inputs=inputs
            )
            return outputs, timing.preprocess_ms
        return self.session.run(inputs), 0.0

    def _buffer(self) -> npt.NDArray[np.generic]:
        """Fresh memory would cost more than the pass that fills it."""
        found: npt.NDArray[np.generic] | None = getattr(self._local, "buffer", None)
        if found is None:
            planes, rows, columns = self.spec.shape
            shape = (1, planes, len(self.spec.windows), rows, columns)
            found = self._local.buffer = kernels.empty(shape, self.spec.dtype)
        return found


class Serving:
    """A bundle's engine, and its stand-in. Safe to use from several threads.

    Parameters
    ----------
    bundle : Bundle
    backend, precision : str
        See :func:`edgehem.model.load`.

    Raises
    ------
    BackendError, BundleError
    """

    def __init__(self, bundle: Bundle, *, backend: str = "auto", precision: str = "auto") -> None:
        self._bundle, self._replaceable = bundle, backend == "auto"
        self.served = _opened(bundle, backend, precision)
        self._stand_in: Served | None = None
        self._making = threading.Lock()

    def answer(
        self, volume: Volume, placed: Placed, served: Served, tensor: npt.NDArray[np.generic] | None
    ) -> tuple[Outputs, float, Served]:
        """As :meth:`Served.answer`; with what really answered.

        An engine that failed gets the next study again; one whose device is lost does not, until the process is started
        anew: :attr:`served` is then the stand-in.
        """
        try:
            return *served.answer(volume, placed, tensor), served
        except BackendError as error:
            stand_in = self._standing_in(served, error)
        outputs, _ = stand_in.answer(volume, placed, stand_in.tensor(volume, placed))
        return outputs, 0.0, stand_in

    def _standing_in(self, served: Served, error: BackendError) -> Served:
        """ONNX Runtime on the CPU with the graph the bundle names for it; raises what went wrong where it may not."""
        if not self._replaceable or served.engine == OnnxRuntime.name:
            raise error
        _log.error("%s cannot analyse a study (%s): ONNX Runtime on the CPU does.", served.engine, error)
        with self._making:
            if self._stand_in is None:
                self._stand_in = _default(self._bundle, OnnxRuntime.name, "auto")
            stand_in = replace(self._stand_in, fallback=f"{served.engine}: {error}")
            if isinstance(error, DeviceLostError):
                self.served = stand_in
        return stand_in


def _opened(bundle: Bundle, backend: str, precision: str) -> Served:
    """Open what was measured as the fastest here (``edgehem compile``), else what the bundle names for the engine."""
    measured = device.choice(bundle, backend=backend, precision=precision)
    if measured is not None:
        graph = next(graph for graph in bundle.manifest.graphs if graph.file == measured.graph)
        content = bundle.read(graph)
        try:
            engine = choose(measured.engine)
            return _served(bundle, engine.name, graph, measured.options, engine.open(content, measured.options))
        except BackendError as error:
            if backend != "auto":
                raise
            _log.warning("What was measured as the fastest here does not run: %s. Run edgehem compile again.", error)
            return replace(_default(bundle, backend, precision), fallback=f"{measured.engine}: {error}")
    return _default(bundle, backend, precision)


def _default(bundle: Bundle, backend: str, precision: str) -> Served:
    """What the bundle names for an engine."""
    engine = choose(backend)
    if precision == "auto":
        precision = bundle.manifest.default_precision.get(engine.name, "fp32")
    graph = bundle.graph(precision, engine.forms)
    options = Options()
    if graph.form in HALF_FORMS:
        options = replace(options, arithmetic=F16)
    if engine.needs_plan:
        try:
            options = replace(options, cache=device.plans(), bundle=bundle.sha256)
        except OSError as error:
            raise BackendError(f"{engine.name} needs its plans: {error}") from error
    return _served(bundle, engine.name, graph, options, engine.open(bundle.read(graph), options))


def _served(bundle: Bundle, engine: str, graph: Graph, options: Options, session: Session) -> Served:
    spec = bundle.manifest.preprocess
    if graph.form in HALF_FORMS:
        if spec.dtype not in ("float32", "float16"):
            raise BundleError(f"{graph.file} reads float16, and bundle {bundle.manifest.name} makes {spec.dtype}")
        spec = msgspec.structs.replace(spec, dtype="float16")
    return Served(
        engine=engine,
        graph=graph,
        arithmetic=options.arithmetic,
        session=session,
        spec=spec,
        inputs=bundle.manifest.inputs,
    )
