"""TensorRT 10.3 to 11 on one NVIDIA GPU, with pycuda. Needs [tensorrt].

A plan is built by ``edgehem compile`` and by nothing else: from the verified ONNX, on the device that it is for. It
serves after it was compared with ONNX Runtime, while GPU, driver and TensorRT are what they were. A study never waits
for a build, and never runs on a plan that nobody compared.
"""

from __future__ import annotations

import hashlib
import logging
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgehem import state
from edgehem.backends import BUILD_S, DEFAULT, F16, F32, TF32, Options
from edgehem.errors import BackendError, PlanError
from edgehem.plans import BUNDLE, GRAPH, PlanStore

# What works on a GPU is imported where one is to be used: every start of edgehem asks this module for a version.
if TYPE_CHECKING:
    from edgehem.backends.lane import Lane
    from edgehem.backends.tensorrt.api import TensorRtApi
    from edgehem.backends.tensorrt.build import Built
    from edgehem.backends.tensorrt.session import TensorRtSession

__all__ = ["TensorRt", "TensorRtDla"]

_log = logging.getLogger(__name__)

DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
"""Packages that install the module ``tensorrt``; JetPack's has none."""
MOST_TIMING_BYTES = 2**28
MOST_TIMINGS = 4


class TensorRt:
    """The backend; see :class:`edgehem.backends.Backend`."""

    name = "tensorrt"
    forms: tuple[str, ...] = ("qdq-s8-f16", "qdq-s8", "float16", "float")
    patience_s = BUILD_S
    on_request = False
    needs_plan = True
    dla_core: int | None = None
    ordinal = 0

    def missing(self) -> str:
        """Empty when there is a TensorRT that edgehem knows, pycuda, a device, and its kernels."""
        from edgehem.backends.tensorrt.api import load

        try:
            load()
            self._lane()
        except BackendError as error:
            return str(error)
        return ""

    def look(self) -> str:
        """The same without opening the device: nothing is compiled, allocated or written, and the kernels may lack."""
        from edgehem.backends.tensorrt.api import load

        try:
            load()
            self._gpu()
        except BackendError as error:
            return str(error)
        return ""

    def version(self) -> str:
        """Of the installed package, without importing it; empty if there is none."""
        for name in DISTRIBUTIONS:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return ""

    def arithmetics(self) -> tuple[str, ...]:
        """Float32; TensorFloat-32 where the GPU has it. A graph that is written in float16 runs in that.

        Raises
        ------
        BackendError
        """
        from edgehem.gpu import has_tf32

        return (F32, TF32) if has_tf32(self._gpu()) else (F32,)

    def open(self, graph: bytes, options: Options = DEFAULT) -> TensorRtSession:
        """Load the graph's qualified plan; with leave to build, make a new one.

        Raises
        ------
        PlanError
            If there is no plan that may serve.
        BackendError
            If TensorRT is missing, or refuses the graph or the plan.
        BackendMemoryError, DeviceLostError
        """
        from edgehem.backends.tensorrt.api import load
        from edgehem.backends.tensorrt.session import TensorRtSession

        if not options.optimise:
            raise BackendError("TensorRT cannot run a graph without optimising it")
        if options.arithmetic != F16 and options.arithmetic not in (can := self.arithmetics()):
            raise BackendError(f"TensorRT computes in {', '.join(can)} on this GPU, not in {options.arithmetic}")
        api, here = load(), self._lane()
        key = self._key(api, graph, options)
        store = None if options.cache is None else PlanStore(options.cache)
        if options.build is not None:
            return self._built(api, here, graph, options, key, store)
        if store is None:
            raise PlanError("TensorRT serves only plans that were made and compared before: run edgehem compile")
        content, record = store.load(self.name, key)
        return TensorRtSession(api, here, content, plan=record.id, dla_core=self.dla_core)

    def _built(
        self,
        api: TensorRtApi,
        here: Lane,
        graph: bytes,
        options: Options,
        key: dict[str, str],
        store: PlanStore | None,
    ) -> TensorRtSession:
        from edgehem.backends.tensorrt.build import build_plan
        from edgehem.backends.tensorrt.session import TensorRtSession

        build = options.build
        assert build is not None
        timing = _Timing(options.cache, key)

        def work() -> Built:
            with here.entered("building a plan"):
                return build_plan(
                    api, graph, build, arithmetic=options.arithmetic, dla_core=self.dla_core, timing=timing.read()
                )

        built = here.do(work, patience_s=self.patience_s)
        timing.write(built.timing)
        session = TensorRtSession(api, here, built.plan, dla_core=self.dla_core)
        if store is not None:
            try:
                details = {**session.describe(), "warnings": list(built.warnings)}
                session.plan = store.keep(self.name, key, built.plan, settings=built.settings, details=details)
            except OSError as error:
                session.close()
                raise BackendError(f"the plan cannot be kept ({error.strerror or error})") from error
            except BaseException:
                session.close()
                raise
        return session

    def _lane(self) -> Lane:
        from edgehem.backends.lane import lane

        return lane(self.ordinal)

    def _gpu(self) -> dict[str, str]:
        from edgehem import gpu
        from edgehem.kernels.errors import KernelError

        try:
            return gpu.key_parts(self.ordinal)
        except KernelError as error:
            raise BackendError(str(error)) from error

    def _key(self, api: TensorRtApi, graph: bytes, options: Options) -> dict[str, str]:
        """Everything that decides a plan. Shapes are the graph's: its free dimensions are 1."""
        return {
            GRAPH: hashlib.sha256(graph).hexdigest(),
            BUNDLE: options.bundle,
            "arithmetic": options.arithmetic,
            "TensorRT": api.__version__,
            "accelerator": "GPU" if self.dla_core is None else f"DLA {self.dla_core}",
            "batch": "1",
            **self._gpu(),
        }


class TensorRtDla(TensorRt):
    """The same on the first deep learning accelerator of a Jetson Orin, with what it cannot do on the GPU.

    Only where it is asked for: it is slower than the GPU, and what it is for is leaving the GPU to others.
    """

    name = "tensorrt-dla"
    forms = ("qdq-s8-f16", "float16")
    on_request = True
    dla_core = 0


class _Timing:
    """The timing cache: what the builder measured, so that the next build on this device need not. It is no code.

    Of two builds at once, the later one's stays.
    """

    def __init__(self, folder: Path | None, key: dict[str, str]) -> None:
        parts = [f"{name}={value}" for name, value in sorted(key.items()) if name not in (GRAPH, BUNDLE, "arithmetic")]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        self._path = None if folder is None else folder / f"timing-{digest}.cache"

    def read(self) -> bytes:
        if self._path is None:
            return b""
        try:
            return state.read_sealed(self._path, most=MOST_TIMING_BYTES)
        except FileNotFoundError:
            return b""
        except OSError as error:
            _log.warning("TensorRT's timing cache is not used: %s.", error)
            return b""

    def write(self, content: bytes) -> None:
        if self._path is None or not content:
            return
        try:
            state.write_sealed(self._path, content)
        except OSError as error:
            _log.warning("TensorRT's timing cache is not kept: %s.", error)
            return
        state.keep_newest(self._path.parent, "timing-*.cache", MOST_TIMINGS)
