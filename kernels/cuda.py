"""The fused pass on a CUDA device: raw slices go up, the tensor stays there for an engine to read.

    with CudaPreprocessor() as preprocessor:
        pixels = preprocessor.staging((40, 512, 512))      # page-locked: decode into it and nothing is copied twice
        tensor = preprocessor(stack, target, windows)      # enqueued on preprocessor.stream, not waited for
        engine.set_tensor_address("image", tensor.pointer)
        engine.execute_async_v3(tensor.stream)

One object owns one stream, page-locked buffers and device buffers for stored pixels and tables, and one for the output.
They grow when a larger study comes and are then kept, so that a warm object allocates nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.kernels import cuda_code, cuda_driver
from edgehem.kernels.cuda_driver import CudaContext, CudaEvent, CudaStream, Driver, Function, typed
from edgehem.kernels.cuda_memory import DeviceTensor, Room
from edgehem.kernels.errors import ContextLostError, GridLimitError, KernelError
from edgehem.kernels.native import Parameters, parameters
from edgehem.kernels.plan import Plan, channels
from edgehem.kernels.types import DTYPES, Stack, Target, Windows

TILE_ROWS, TILE_COLUMNS, THREADS = 8, 128, 256
"""What one block makes, and with how many threads: preprocess.cu."""
MOST_BLOCKS = 2**31 - 1
"""Along a grid's first dimension (CUDA C++ Programming Guide, Technical Specifications per Compute Capability)."""
ARGUMENTS = (f"{ctypes.sizeof(Parameters)}s", "P", "P", "P")
"""What every kernel takes: EhPlan by value, tables, pixels, output."""
Int16 = npt.NDArray[np.int16]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A stack whose pixels are on the device, until another one is uploaded."""

    stack: Stack
    staged: Int16
    pointer: int
    serial: int


class CudaPreprocessor:
    """The fused pass on one device.

    It belongs to the thread that made it; only :meth:`close` may be called from another. The context is current inside
    its methods, and as it was before outside them.

    Parameters
    ----------
    device : int
        Ordinal, where no context is given: its primary context is used, as TensorRT does.
    context : pycuda.driver.Context, optional
        Another context, which must outlive this object and what :meth:`staging` gave.
    stream : pycuda.driver.Stream, optional
        Of that context; a new one by default.

    Raises
    ------
    KernelUnavailableError
        If there is no pycuda, no device, or no code for it.
    KernelMemoryError
    """

    def __init__(
        self, *, device: int = 0, context: CudaContext | None = None, stream: CudaStream | None = None
    ) -> None:
        self._owner = _here()
        self._closed = self._lost = False
        self.driver: Driver = cuda_driver.driver()
        self._context = context if context is not None else cuda_driver.primary_context(self.driver, device)
        with self.entered("loading the kernels"):
            found = self.driver.Context.get_device()
            machine = cuda_code.Machine.of(self.driver, found.compute_capability())
            module, code = cuda_code.load(self.driver, machine)
            self.device_name = found.name()
            self.origin, self.detail = code.origin, code.detail
            self._functions: dict[str, Function] = {
                dtype: module.get_function(f"eh_preprocess_{dtype}").prepare(ARGUMENTS) for dtype in DTYPES
            }
            self._stream: CudaStream | None = stream or self.driver.Stream()
            # Recorded behind each copy out of page-locked memory: until then its bytes must stay as they are.
            flags = self.driver.event_flags.DISABLE_TIMING
            self._pixels_left: CudaEvent = self.driver.Event(flags)
            self._tables_left: CudaEvent = self.driver.Event(flags)
        memory = self.driver.MemoryError
        # Page-locked memory is let go, not freed: somebody may still read a stack in it.
        locked = functools.partial(self.driver.pagelocked_empty, dtype="uint8")
        self._staging, self._staged_tables = (Room(locked, lambda held: None, memory) for _ in range(2))
        self._pixels, self._tables, self._output = (
            Room(self.driver.mem_alloc, lambda held: held.free(), memory) for _ in range(3)
        )
        self._serial = 0

    @property
    def stream(self) -> CudaStream:
        """The stream on which everything happens."""
        if self._stream is None:
            raise KernelError("this preprocessor is closed")
        return self._stream

    def reserve(self, stored: tuple[int, int, int], target: Target, windows: Windows | None) -> None:
        """Make room for stacks and grids up to these, so that no later call allocates. Drops what was uploaded.

        Parameters
        ----------
        stored : tuple of int
            Slices, rows, columns.
        target : Target
        windows : Windows or None

        Raises
        ------
        KernelMemoryError
        """
        with self.entered("reserving memory"):
            self._serial += 1
            size = math.prod(stored) * np.dtype(np.int16).itemsize
            self._stage(size)
            self._grow(self._staged_tables, _table_bytes(stored[0]))
            self._grow(self._pixels, size)
            self._grow(self._tables, _table_bytes(stored[0]))
            self._grow(self._output, _tensor(target, windows).nbytes)

    def staging(self, shape: tuple[int, int, int]) -> Int16:
        """Page-locked memory for one stack: what is decoded into it goes up without another copy.

        Ask for it anew for every study: this call waits until the previous one has left. It may be read for as long as
        it is referred to, but not written once its stack has been uploaded.

        Parameters
        ----------
        shape : tuple of int
            Slices, rows, columns.

        Returns
        -------
        int16 array [Z, Y, X]
            With whatever it held before.

        Raises
        ------
        KernelMemoryError
        """
        with self.entered("reserving page-locked memory"):
            return self._stage(math.prod(shape) * np.dtype(np.int16).itemsize).view(np.int16).reshape(shape)

    def upload(self, stack: Stack) -> Uploaded:
        """Copy a stack's pixels to the device, to be sampled on one grid or on several.

        Parameters
        ----------
        stack : Stack
            Its pixels may have any strides. They are copied to page-locked memory first, unless they lie there.

        Returns
        -------
        Uploaded
            Valid until the next upload. The copy is enqueued, not waited for.

        Raises
        ------
        ValueError
            If the stack is empty.
        KernelMemoryError, KernelLaunchError, ContextLostError
        """
        if not stack.pixels.size:
            raise ValueError(f"a stack needs slices with pixels, not {stack.pixels.shape}")
        with self.entered("copying a stack to the GPU"):
            self._serial += 1
            staged = stack.pixels
            if (source := self._resident(staged)) is None:
                source = self._stage(stack.pixels.nbytes)
                staged = source.view(np.int16).reshape(stack.pixels.shape)
                np.copyto(staged, stack.pixels, casting="equiv")
            self._grow(self._pixels, source.nbytes)
            pointer = int(self._pixels.held())
            self.driver.memcpy_htod_async(pointer, source, self.stream)
            self._pixels_left.record(self.stream)
        return Uploaded(stack=stack, staged=staged, pointer=pointer, serial=self._serial)

    def run(
        self, uploaded: Uploaded, target: Target, windows: Windows | None, *, out_pointer: int | None = None
    ) -> DeviceTensor:
        """Sample an uploaded stack on a grid.

        Parameters
        ----------
        uploaded : Uploaded
        target : Target
        windows : Windows or None
            None gives HU: one channel of float32.
        out_pointer : int, optional
            Device address of an engine's input, with room for the tensor. By default a buffer of this object's, which
            the next call overwrites.

        Returns
        -------
        DeviceTensor
            Enqueued on :attr:`stream`, not waited for: an error inside the kernel shows in a later call.

        Raises
        ------
        ValueError
            If `out_pointer` is no address of the output's type.
        GridLimitError
            If the grid is too large for one launch.
        KernelMemoryError, KernelLaunchError, ContextLostError
        """
        tensor = replace(_tensor(target, windows), stream=self.stream.handle, pointer=out_pointer or 0)
        if not tensor.nbytes:
            return tensor
        if out_pointer is not None and (out_pointer <= 0 or out_pointer % np.dtype(tensor.dtype).itemsize):
            raise ValueError(f"{out_pointer:#x} is no address of {tensor.dtype}")
        if uploaded.serial != self._serial:
            raise KernelError("another stack has been uploaded since, so this one is no longer on the device")
        blocks = _blocks(target.shape)
        plan = Plan.of(uploaded.stack, target)
        block, table = parameters(plan, channels(windows), uploaded.staged), plan.tables.view(np.uint8)
        with self.entered("running the preprocessing kernel"):
            self._grow(self._tables, table.nbytes)
            if out_pointer is None:
                self._grow(self._output, tensor.nbytes)
                tensor = replace(tensor, pointer=int(self._output.held()))
            self._tables_left.synchronize()
            self._grow(self._staged_tables, table.nbytes)
            staged = self._staged_tables.held()[: table.nbytes]
            staged[:] = table
            tables_pointer = int(self._tables.held())
            self.driver.memcpy_htod_async(tables_pointer, staged, self.stream)
            self._tables_left.record(self.stream)
            self._functions[tensor.dtype].prepared_async_call(
                (blocks, 1),
                (THREADS, 1, 1),
                self.stream,
                bytes(block),
                tables_pointer,
                uploaded.pointer,
                tensor.pointer,
            )
        return tensor

    def __call__(
        self, stack: Stack, target: Target, windows: Windows | None, *, out_pointer: int | None = None
    ) -> DeviceTensor:
        """The whole pass: :meth:`upload`, then :meth:`run`. While pixels travel, the host lays out the plan."""
        return self.run(self.upload(stack), target, windows, out_pointer=out_pointer)

    def synchronize(self) -> None:
        """Wait for everything enqueued.

        Raises
        ------
        KernelLaunchError, ContextLostError
            If any of it failed.
        """
        with self.entered("waiting for the GPU"):
            self.stream.synchronize()

    def download(self, tensor: DeviceTensor) -> npt.NDArray[np.generic]:
        """A tensor's values on the host, for tests and tools.

        Parameters
        ----------
        tensor : DeviceTensor
            Neither overwritten nor freed since.

        Returns
        -------
        array of `tensor.shape` and `tensor.dtype`
        """
        out: npt.NDArray[np.generic] = np.empty(tensor.shape, tensor.dtype)
        if out.size:
            with self.entered("copying a tensor from the GPU"):
                self.stream.synchronize()
                self.driver.memcpy_dtoh(out, tensor.pointer)
        return out

    def close(self) -> None:
        """Wait for the device, then free what this object allocated there. Twice is as good as once."""
        if self._closed:
            return
        self._closed = True
        # pycuda frees events, the stream and the module with their last reference, and needs the context for it.
        with contextlib.suppress(self.driver.Error):
            self._context.push()
            try:
                with contextlib.suppress(self.driver.Error):
                    self.stream.synchronize()
                for room in (self._pixels, self._tables, self._output, self._staging, self._staged_tables):
                    room.free()
                self._stream = None
                del self._functions, self._pixels_left, self._tables_left
            finally:
                self._context.pop()

    def __enter__(self) -> CudaPreprocessor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Memory

    def _grow(self, room: Room[Any], size: int) -> None:
        if size > room.size:
            self.stream.synchronize()  # work in flight may still use the smaller one
            room.grow(size)

    def _stage(self, size: int) -> Bytes:
        """The first bytes of the staging buffer, free to be written."""
        self._pixels_left.synchronize()
        self._grow(self._staging, size)
        return self._staging.held()[:size]

    def _resident(self, pixels: Int16) -> Bytes | None:
        """The part of the staging buffer that holds these pixels; None where they lie elsewhere, or columns apart."""
        item = pixels.itemsize
        adjacent = pixels.strides[2] == item and all(stride > 0 and stride % item == 0 for stride in pixels.strides)
        if not (self._staging.size and adjacent):
            return None
        buffer = self._staging.held()
        first = pixels.ctypes.data - buffer.ctypes.data
        last = first + sum((n - 1) * stride for n, stride in zip(pixels.shape, pixels.strides, strict=True))
        return buffer[first : last + item] if first >= 0 and last < self._staging.size else None

    # The context

    @contextlib.contextmanager
    def entered(self, doing: str) -> Iterator[None]:
        """Make the context current for what else works on this stream; the driver's errors come out as ours.

        Parameters
        ----------
        doing : str
            For messages: "copying a stack to the GPU".

        Raises
        ------
        KernelError
            If this object is closed, or another thread's.
        KernelMemoryError, KernelLaunchError, ContextLostError
        """
        if self._closed:
            raise KernelError("this preprocessor is closed")
        if self._lost:
            raise ContextLostError(f"{doing}: an earlier error left the CUDA context unusable; start a new process")
        if _here() != self._owner:
            raise KernelError("this preprocessor belongs to another thread or process: make one for each")
        with typed(self.driver, doing):
            self._context.push()
            failing = True
            try:
                yield
                failing = False
            except self.driver.MemoryError:
                raise
            except self.driver.Error as error:
                self._lost = self._is_lost()
                if self._lost:
                    raise ContextLostError(
                        f"{doing}: {error}; the CUDA context is unusable from now on: start a new process"
                    ) from error
                raise
            finally:
                # What is wrong already is what has to be told.
                with contextlib.suppress(*([self.driver.Error] if failing else [])):
                    self._context.pop()

    def _is_lost(self) -> bool:
        """Some errors stay: after them whatever is asked of the context fails."""
        try:
            self.driver.Context.synchronize()
        except self.driver.Error:
            return True
        return False


def _tensor(target: Target, windows: Windows | None) -> DeviceTensor:
    """What a pass gives, nowhere yet."""
    planes, height, width = target.shape
    channels, dtype = (len(windows.level_width), windows.dtype) if windows is not None else (1, "float32")
    return DeviceTensor(pointer=0, shape=(planes, channels, height, width), dtype=dtype, stream=0)


def _blocks(shape: tuple[int, int, int]) -> int:
    planes, height, width = shape
    blocks = math.ceil(width / TILE_COLUMNS) * math.ceil(height / TILE_ROWS) * planes
    if blocks > MOST_BLOCKS:
        raise GridLimitError(f"{planes} × {height} × {width} voxels take {blocks} blocks; a launch has {MOST_BLOCKS}")
    return blocks


def _table_bytes(slices: int) -> int:
    """Of the tables of formulas.h."""
    return (7 * slices + 3) * np.dtype(np.float32).itemsize


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
