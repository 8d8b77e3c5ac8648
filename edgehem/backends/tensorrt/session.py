"""A deserialised plan on a GPU lane: bound once, run without allocating.

All of this happens on the lane's thread, in the order in which its stream gets it: inputs go up, the engine runs,
outputs come down into page-locked memory, and one wait ends it. What the preprocessing
kernel wrote is read where it lies.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends import Array, DeviceTiming
from edgehem.backends.lane import Lane, empty_frames
from edgehem.backends.tensorrt.api import Context, Engine, Runtime, TensorRtApi, ears, sizes
from edgehem.backends.tensorrt.build import layers
from edgehem.errors import BackendError, DeviceLostError
from edgehem.kernels.cuda import CudaPreprocessor
from edgehem.kernels.cuda_driver import Allocation, CudaEvent
from edgehem.kernels.cuda_memory import DeviceTensor
from edgehem.kernels.types import Stack, Target, Windows

ALIGNMENT = 256
"""Of every address an engine is given (TensorRT, ``setTensorAddress``)."""
WARM_RUNS = 2
"""The first run of a context loads code and reserves memory; the second shows that it is done with that."""
OPEN_S = 300.0
"""To deserialise a plan and run it for the first time: 8 s have been reported of a Jetson."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of an engine.

    Parameters
    ----------
    name : str
    dtype : str
    shape : tuple of int
        The largest; inputs may be smaller along free dimensions.
    least : tuple of int
        Of an input: the smallest. Equal to `shape` where nothing is free.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    least: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of the largest."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        """Raise BackendError unless this may be bound here."""
        fits = len(shape) == len(self.shape) and all(
            low <= size <= high for low, size, high in zip(self.least, shape, self.shape, strict=True)
        )
        if not fits or dtype != self.dtype:
            raise BackendError(
                f"TensorRT failed: the engine reads {self.name} as {self.dtype} {_said(self.least, self.shape)}, "
                f"and was given {dtype} {_said(shape, shape)}"
            )


class TensorRtSession:
    """A plan that is ready to run; see :class:`edgehem.backends.DeviceSession`.

    Parameters
    ----------
    api : TensorRtApi
    lane : Lane
        Its device is the one the plan was built for.
    content : bytes
        The plan: built here a moment ago, or read as :meth:`edgehem.plans.PlanStore.load` reads it. It is code.
    plan : str
        Its id in the plan store; empty if it was not kept.
    dla_core : int, optional

    Raises
    ------
    BackendError
        If TensorRT does not take the plan, or it needs what this session does not have.
    BackendMemoryError, DeviceLostError
    """

    def __init__(
        self, api: TensorRtApi, lane: Lane, content: bytes, *, plan: str = "", dla_core: int | None = None
    ) -> None:
        self.plan = plan
        self.lane = lane
        self._engine = lane.do(lambda: _Bound(api, lane, content, dla_core), patience_s=OPEN_S)
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs
        # One that is dropped without a word is freed where it was made, too.
        self._end = weakref.finalize(self, lane.post, self._engine.close)
        self._end.atexit = False  # then the lane does it

    def run(self, inputs: Mapping[str, Array | DeviceTensor]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the engine.

        Parameters
        ----------
        inputs : dict of str to array or DeviceTensor
            Arrays are copied to the device. A tensor that another job left on this lane is read where it is, by any
            number of sessions: nothing else may have used the lane's preprocessor in between, so give both to one job
            (``session.lane.do``).

        Returns
        -------
        dict of str to array
            The caller's own.

        Raises
        ------
        BackendError
            If the inputs are not what the engine reads, or the run fails.
        BackendMemoryError, DeviceLostError
        """
        self._check(inputs)
        return self.lane.do(lambda: self._engine.run(inputs))

    def analyse(
        self, stack: Stack, target: Target, windows: Windows, *, image: str, inputs: Mapping[str, Array]
    ) -> tuple[dict[str, npt.NDArray[np.float32]], DeviceTiming]:
        """From raw slices to outputs on one stream; see :meth:`edgehem.backends.DeviceSession.analyse`."""
        port = self.inputs.get(image)
        if port is None:
            raise BackendError(f"TensorRT failed: the engine reads {', '.join(self.inputs)}, no {image}")
        if port.dtype != windows.dtype and "int8" in (port.dtype, windows.dtype):
            raise BackendError(f"TensorRT failed: the engine reads {image} as {port.dtype}, not {windows.dtype}")
        others = {name: value for name, value in inputs.items() if name != image}
        self._check({**others, image: DeviceTensor(pointer=0, shape=port.least, dtype=port.dtype, stream=0)})
        return self.lane.do(
            lambda: self._engine.analyse(stack, target, replace(windows, dtype=port.dtype), image, others)
        )

    def describe(self) -> dict[str, Any]:
        """The engine's layers and their data types, as its inspector tells them; see :func:`layers`."""
        return self.lane.do(self._engine.describe)

    def close(self) -> None:
        """Free what the engine holds on the device. Afterwards a run is an error. Twice is as good as once."""
        self._end.detach()
        if not self.lane.closed:
            with contextlib.suppress(DeviceLostError):
                self.lane.do(self._engine.close)

    def _check(self, inputs: Mapping[str, Array | DeviceTensor]) -> None:
        if inputs.keys() != self.inputs.keys():
            raise BackendError(
                f"TensorRT failed: the engine reads {', '.join(self.inputs)}, and was given {', '.join(inputs)}"
            )
        for name, value in inputs.items():
            self.inputs[name].check(tuple(value.shape), np.dtype(value.dtype).name)


class _Bound:
    """The engine with its memory: on the lane's thread only.

    TensorRT's objects are let go in the order they need: context, engine, runtime.
    """

    def __init__(self, api: TensorRtApi, lane: Lane, content: bytes, dla_core: int | None) -> None:
        self._api, self._lane = api, lane
        self._heard = ears(api)
        self._heard.forget()
        self._device: dict[str, Allocation] = {}
        self._locked: dict[str, npt.NDArray[np.uint8]] = {}
        self._at: dict[str, int] = {}
        self._now: dict[str, tuple[int, ...]] = {}
        self._context: Context | None = None
        with lane.entered("loading a plan") as preprocessor:
            try:
                with self._heard.typed("TensorRT does not load the plan"):
                    self._load(content, dla_core)
                self._reserve(preprocessor)
                self._marks: list[CudaEvent] = [
                    preprocessor.driver.Event(preprocessor.driver.event_flags.DEFAULT) for _ in range(4)
                ]
            except BaseException as error:
                empty_frames(error)
                self._free()
                raise
        with lane.entered("running a plan for the first time") as preprocessor:
            try:
                for _ in range(WARM_RUNS):
                    self._execute(preprocessor)
                    preprocessor.stream.synchronize()
                if self._heard.errors:
                    raise self._failure("TensorRT failed while running the engine")
            except BaseException as error:
                empty_frames(error)
                self._free()
                raise
        lane.hold(self)

    # Opening

    def _load(self, content: bytes, dla_core: int | None) -> None:
        self._runtime: Runtime | None = self._api.Runtime(self._heard.logger)
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self._failure("TensorRT does not load the plan")
        self._engine: Engine | None = engine
        if engine.num_optimization_profiles != 1:
            raise BackendError(
                f"the plan has {engine.num_optimization_profiles} optimisation profiles; edgehem makes 1"
            )
        self._context = engine.create_execution_context()
        if self._context is None:
            raise self._failure("TensorRT makes no execution context")
        inputs: list[Port] = []
        outputs: list[Port] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kept = inputs if engine.get_tensor_mode(name) == self._api.TensorIOMode.INPUT else outputs
            kept.append(self._port(engine, name, is_input=kept is inputs))
        self.inputs = {port.name: port for port in inputs}
        for port in inputs:
            self._shape(port.name, port.shape)
        self._infer()
        self.outputs = {port.name: replace(port, shape=self._shape_of(port.name)) for port in outputs}

    def _port(self, engine: Engine, name: str, *, is_input: bool) -> Port:
        """What an engine declares; what this session could not feed or read is refused here, not in a study."""
        if engine.get_tensor_location(name) != self._api.TensorLocation.DEVICE:
            raise BackendError(f"the engine wants {name} in host memory: a shape that depends on data is not supported")
        if engine.get_tensor_format(name) != self._api.TensorFormat.LINEAR:
            raise BackendError(f"the engine wants {name} in a vectorised format, not row by row")
        try:
            dtype = np.dtype(self._api.nptype(engine.get_tensor_dtype(name))).name
        except TypeError as error:
            raise BackendError(f"the engine wants {name} in a type that NumPy does not have") from error
        if is_input:
            least, _, most = map(sizes, engine.get_tensor_profile_shape(name, 0))
        else:
            least = most = ()
        return Port(name=name, dtype=dtype, shape=most, least=least)

    def _reserve(self, preprocessor: CudaPreprocessor) -> None:
        """Memory for every input and output, and the engine told of it."""
        driver = preprocessor.driver
        for port in (*self.inputs.values(), *self.outputs.values()):
            held = driver.mem_alloc(max(port.nbytes, 1))
            self._device[port.name] = held
            self._bind(port.name, int(held))
        for port in self.outputs.values():
            self._locked[port.name] = driver.pagelocked_empty(max(port.nbytes, 1), dtype="uint8")

    # A run

    def run(self, inputs: Mapping[str, Array | DeviceTensor]) -> dict[str, npt.NDArray[np.float32]]:
        with self._lane.entered("running an engine") as preprocessor:
            return self._whole(preprocessor, inputs)

    def analyse(
        self, stack: Stack, target: Target, windows: Windows, image: str, inputs: Mapping[str, Array]
    ) -> tuple[dict[str, npt.NDArray[np.float32]], DeviceTiming]:
        with self._lane.entered("analysing a study") as preprocessor:
            self._marks[0].record(preprocessor.stream)
            tensor = preprocessor(stack, target, windows)
            self._marks[1].record(preprocessor.stream)
            placed = replace(tensor, shape=(1, *tensor.shape))
            self.inputs[image].check(placed.shape, placed.dtype)
            outputs = self._whole(preprocessor, {**inputs, image: placed})
            begun, made, answered, down = self._marks
            timing = DeviceTiming(
                preprocess_ms=begun.time_till(made),
                infer_ms=made.time_till(answered),
                fetch_ms=answered.time_till(down),
            )
        return outputs, timing

    def _whole(
        self, preprocessor: CudaPreprocessor, inputs: Mapping[str, Array | DeviceTensor]
    ) -> dict[str, npt.NDArray[np.float32]]:
        if self._context is None:
            raise BackendError("this TensorRT session is closed")
        self._heard.forget()
        try:
            self._place(preprocessor, inputs)
            self._execute(preprocessor)
            self._marks[2].record(preprocessor.stream)
            taken = {}
            for name, port in self.outputs.items():
                shape = self._shape_of(name)
                size = math.prod(shape) * np.dtype(port.dtype).itemsize
                if size > self._locked[name].nbytes:
                    raise BackendError(f"TensorRT failed: {name} is larger than the engine declared")
                staged = self._locked[name][:size]
                if size:
                    preprocessor.driver.memcpy_dtoh_async(staged, int(self._device[name]), preprocessor.stream)
                taken[name] = staged.view(port.dtype).reshape(shape)
            self._marks[3].record(preprocessor.stream)
        finally:
            # Whatever was enqueued reads and writes memory that the next job uses.
            preprocessor.stream.synchronize()
        if self._heard.errors:
            raise self._failure("TensorRT failed while running the engine")
        return {name: array.copy() for name, array in taken.items()}

    def _place(self, preprocessor: CudaPreprocessor, inputs: Mapping[str, Array | DeviceTensor]) -> None:
        """Inputs to where the engine reads them."""
        driver = preprocessor.driver
        for name, value in inputs.items():
            if isinstance(value, DeviceTensor):
                self._bind(name, value.pointer)
            else:
                own = int(self._device[name])
                if value.nbytes:
                    if name not in self._locked:  # an image that comes from the host: when a bundle is measured
                        self._locked[name] = driver.pagelocked_empty(self.inputs[name].nbytes, dtype="uint8")
                    staged = self._locked[name][: value.nbytes]
                    np.copyto(staged.view(value.dtype).reshape(value.shape), value)
                    driver.memcpy_htod_async(own, staged, preprocessor.stream)
                self._bind(name, own)
            self._shape(name, tuple(value.shape))
        self._infer()

    def _execute(self, preprocessor: CudaPreprocessor) -> None:
        assert self._context is not None
        if not self._context.execute_async_v3(preprocessor.stream.handle):
            raise self._failure("TensorRT failed while starting the engine")

    # What the context is told, and only when it changes

    def _bind(self, name: str, address: int) -> None:
        if self._at.get(name) == address:
            return
        assert self._context is not None
        if address <= 0 or address % ALIGNMENT:
            raise BackendError(f"TensorRT failed: {name} lies at {address:#x}, not at a multiple of {ALIGNMENT}")
        if not self._context.set_tensor_address(name, address):
            raise self._failure(f"TensorRT does not take the address of {name}")
        self._at[name] = address

    def _shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self._now.get(name) == shape:
            return
        assert self._context is not None
        if not self._context.set_input_shape(name, shape):
            raise self._failure(f"TensorRT does not take {name} as {_said(shape, shape)}")
        self._now[name] = shape
        self._inferred = False

    _inferred = False

    def _infer(self) -> None:
        """Have the shapes of outputs follow those of inputs."""
        if self._inferred:
            return
        assert self._context is not None
        with self._heard.typed("TensorRT does not take the shapes of the inputs"):
            missing = list(self._context.infer_shapes())
        if missing:
            raise BackendError(f"TensorRT does not know the shape of {', '.join(missing)}")
        self._inferred = True

    def _shape_of(self, name: str) -> tuple[int, ...]:
        assert self._context is not None
        shape = sizes(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise BackendError(f"the shape of {name} depends on data, which is not supported")
        return shape

    # The end

    def describe(self) -> dict[str, Any]:
        if self._engine is None:
            raise BackendError("this TensorRT session is closed")
        with self._lane.entered("asking an engine for its layers"):
            return layers(self._api, self._engine)

    def close(self) -> None:
        if self._engine is None:
            return
        with self._lane.entered("freeing an engine") as preprocessor:
            preprocessor.stream.synchronize()
            self._free()
        self._lane.let_go(self)

    def _free(self) -> None:
        self._context = None
        self._engine = None
        self._runtime = None
        for held in self._device.values():
            held.free()
        self._device.clear()
        self._locked.clear()
        self._at.clear()
        self._marks = []

    _engine: Engine | None = None
    _runtime: Runtime | None = None

    def _failure(self, what: str) -> BackendError:
        """TensorRT's word of false as one of our errors: for good, for lack of memory, or for now."""
        try:
            self._lane.preprocessor.driver.Context.synchronize()
        except self._lane.preprocessor.driver.Error as error:
            return DeviceLostError(f"{what}: {error}; the CUDA context is unusable from now on: start a new process")
        return self._heard.failure(what)


def _said(least: tuple[int, ...], most: tuple[int, ...]) -> str:
    sizes = (str(high) if low == high else f"{low} to {high}" for low, high in zip(least, most, strict=True))
    return f"[{', '.join(sizes)}]"
