"""A fake pycuda: no GPU, no driver. For the control flow of cuda.py, and for the numbers of preprocess.cu on the host.

"Device memory" is host memory with its own bounds; a launch runs preprocess.cu compiled for the host. What a stream is
given is done as late as CUDA allows: when somebody waits for it. So bytes that are overwritten too early, buffers that
are freed too early and tensors that are read too early show as wrong numbers or as :class:`MisuseError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import math
import struct
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from edgehem.kernels.native import DTYPE_CODES, Parameters

MAGIC = b"fake code "
POISON = 0xA5


class MisuseError(AssertionError):
    """Something that CUDA would not survive, or that pycuda aborts the process for."""


class Error(Exception):
    """All errors of the fake, named as pycuda's are."""


class FakeMemoryError(Error): ...


class LogicError(Error): ...


class LaunchError(Error): ...


class CompileError(Error): ...


def code(*architectures: int, ptx: int = 0) -> bytes:
    """What stands for machine code here: it says what it runs on."""
    return MAGIC + json.dumps({"architectures": architectures, "ptx": ptx}).encode()


class Context:
    """pycuda.driver.Context: one stack of them a thread."""

    cuda: FakeCuda

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def push(self) -> None:
        self.cuda.calls["push"] += 1
        self.cuda.stack.append(self)

    @classmethod
    def pop(cls) -> None:
        if not cls.cuda.stack:
            raise LogicError("cannot pop context from empty stack")
        cls.cuda.stack.pop()

    @classmethod
    def get_device(cls) -> SimpleNamespace:
        cls.cuda.current()
        return cls.cuda.device(0)

    @classmethod
    def synchronize(cls) -> None:
        cls.cuda.wait()


class Stream:
    """pycuda.driver.Stream: work is done when it is waited for."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.context, self.work = cuda, cuda.current(), deque[Callable[[], None]]()
        cuda.calls["stream"] += 1
        cuda.streams.append(self)
        self.handle = 0x5000 + len(cuda.streams)

    def synchronize(self) -> None:
        self.cuda.current()
        self.drain()
        self.cuda.current()

    def drain(self) -> None:
        while self.work:
            self.step()

    def step(self) -> None:
        work = self.work.popleft()
        if self.cuda.fault is None:  # a lost context does nothing more
            work()


class Event:
    """pycuda.driver.Event."""

    def __init__(self, cuda: FakeCuda, flags: int) -> None:
        self.timed = flags == cuda.driver.event_flags.DEFAULT
        assert self.timed or flags == cuda.driver.event_flags.DISABLE_TIMING
        cuda.current()
        cuda.calls["event"] += 1
        self.cuda, self.stream, self.reached = cuda, None, True

    def record(self, stream: Stream) -> Event:
        self.cuda.current()
        mark = SimpleNamespace(reached=False, at=0)

        def reach() -> None:
            mark.reached, mark.at = True, next(self.cuda.clock)

        stream.work.append(reach)
        self.mark, self.stream = mark, stream
        return self

    def synchronize(self) -> Event:
        self.cuda.current()
        while self.stream is not None and not self.mark.reached and self.stream.work:
            self.stream.step()
        self.cuda.current()
        return self

    def time_till(self, later: Event) -> float:
        """By a clock that ticks once for each event, a millisecond each."""
        self.cuda.current()
        if not (self.timed and later.timed and self.mark.reached and later.mark.reached):
            raise LogicError("cuEventElapsedTime failed: not ready")
        return float(later.mark.at - self.mark.at)


class Allocation:
    """pycuda.driver.DeviceAllocation."""

    def __init__(self, cuda: FakeCuda, size: int) -> None:
        self.cuda, self.context, self.size = cuda, cuda.current(), size
        self.bytes = np.full(size + 256, POISON, np.uint8)
        # As on a device, an address is a multiple of 256.
        self.address = -(-self.bytes.ctypes.data // 256) * 256
        cuda.memory[self.address] = self

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        if self.cuda.memory.get(self.address) is not self:
            raise LogicError("freed twice")
        self.cuda.activate(self.context)
        self.cuda.calls["free"] += 1
        if any(stream.work for stream in self.cuda.streams) and self.cuda.fault is None:
            raise MisuseError("freed while work that may use it was in flight")
        del self.cuda.memory[self.address]
        self.bytes.fill(POISON)


class Module:
    """pycuda.driver.Module."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.context = cuda, cuda.current()

    def get_function(self, name: str) -> Function:
        self.cuda.current()
        dtype = name.removeprefix("eh_preprocess_")
        if dtype not in DTYPE_CODES:
            raise LogicError("cuModuleGetFunction failed: named symbol not found")
        return Function(self, dtype)


class Function:
    """pycuda.driver.Function."""

    def __init__(self, module: Module, dtype: str) -> None:
        self.module, self.dtype, self.format = module, dtype, ""

    def prepare(self, arg_types: tuple[str, ...]) -> Function:
        self.format = "".join(arg_types)
        return self

    def prepared_async_call(self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream, *args: Any) -> None:
        cuda = self.module.cuda
        if cuda.current() is not self.module.context:
            raise LogicError("invalid resource handle")
        if not (isinstance(grid, tuple) and isinstance(block, tuple) and len(grid) <= 3 and len(block) <= 3):
            raise TypeError("grid and block are tuples of at most three")
        if grid[0] > 2**31 - 1 or any(n > 65535 for n in grid[1:]) or math.prod(block) > 1024:
            raise LogicError("cuLaunchKernel failed: invalid argument")
        cuda.failing("launch")
        cuda.calls["launch"] += 1
        packed = struct.pack(self.format, *args)  # native alignment, as pycuda packs
        stream.work.append(lambda: cuda.execute(self.dtype, math.prod(grid), math.prod(block), packed))


class PageLocked(bytearray):
    """Memory of pagelocked_empty, for as long as an array refers to it."""


class FakeCuda:
    """One fake machine: its driver, its compiler, and what has been asked of them.

    Parameters
    ----------
    library : ctypes.CDLL
        preprocess.cu for the host.
    capability : tuple of int
    driver_version : int
    memory_limit : int
        Bytes of device memory.
    devices : int
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        *,
        capability: tuple[int, int] = (9, 0),
        driver_version: int = 13000,
        memory_limit: int = 1 << 30,
        devices: int = 1,
    ) -> None:
        self.library, self.capability, self.memory_limit = library, capability, memory_limit
        self.driver_version, self.devices = driver_version, devices
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, Exception] = {}
        self.fault: Exception | None = None
        self.fault_at_launch = False
        self.locked_limit = 1 << 30
        self.memory: dict[int, Allocation] = {}
        self.locked: dict[int, int] = {}
        self.streams: list[Stream] = []
        self.compiled: list[dict[str, Any]] = []
        self.clock = itertools.count(1)
        self.multiprocessors, self.integrated = 16, 0
        self._stacks: dict[int, list[Context]] = {}
        self._context = type("Context", (Context,), {"cuda": self})
        self.driver = ModuleType("pycuda.driver")
        self.compiler = ModuleType("pycuda.compiler")
        self.package = ModuleType("pycuda")
        device = type("Device", (), {"__new__": lambda cls, n: self.device(n), "count": staticmethod(self.count)})
        vars(self.driver).update(
            Error=Error,
            MemoryError=FakeMemoryError,
            LogicError=LogicError,
            LaunchError=LaunchError,
            CompileError=CompileError,
            Context=self._context,
            Device=device,
            Stream=lambda: Stream(self),
            Event=lambda flags: Event(self, flags),
            event_flags=SimpleNamespace(DEFAULT=0, DISABLE_TIMING=2),
            device_attribute=SimpleNamespace(MULTIPROCESSOR_COUNT="multiprocessors", INTEGRATED="integrated"),
            init=lambda: self.failing("init"),
            get_driver_version=lambda: self.driver_version,
            mem_alloc=self.mem_alloc,
            pagelocked_empty=self.pagelocked_empty,
            memcpy_htod_async=self.memcpy_htod_async,
            memcpy_dtoh=self.memcpy_dtoh,
            memcpy_dtoh_async=self.memcpy_dtoh_async,
            module_from_buffer=self.module_from_buffer,
        )
        vars(self.compiler).update(compile=self.compile)
        vars(self.package).update(driver=self.driver, compiler=self.compiler, __path__=[])

    @property
    def modules(self) -> dict[str, ModuleType]:
        """What to put into sys.modules."""
        return {"pycuda": self.package, "pycuda.driver": self.driver, "pycuda.compiler": self.compiler}

    def failing(self, what: str) -> None:
        """Fail, if a test asked for it."""
        if what in self.failures:
            raise self.failures[what]

    # Contexts

    @property
    def stack(self) -> list[Context]:
        return self._stacks.setdefault(threading.get_ident(), [])

    def current(self) -> Context:
        if not self.stack:
            raise LogicError("invalid device context")
        if self.fault is not None:
            raise self.fault
        return self.stack[-1]

    def activate(self, context: Context) -> None:
        """What pycuda does before it frees: it may switch to the context, but only on the thread of the context."""
        if not (self.stack and self.stack[-1] is context) and threading.get_ident() != context.thread:
            raise MisuseError("out-of-thread context: pycuda would warn and leak")

    def wait(self) -> None:
        self.current()
        for stream in self.streams:
            stream.drain()
        self.current()

    def device(self, ordinal: int) -> SimpleNamespace:
        if not 0 <= ordinal < self.devices:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")
        return SimpleNamespace(
            name=lambda: "Fake GPU",
            compute_capability=lambda: self.capability,
            retain_primary_context=self.retain_primary_context,
            total_memory=lambda: self.memory_limit,
            get_attribute=lambda name: getattr(self, name),
        )

    def count(self) -> int:
        return self.devices

    def retain_primary_context(self) -> Context:
        self.calls["retain"] += 1
        return self._context()

    # Memory

    def mem_alloc(self, size: int) -> Allocation:
        self.current()
        self.calls["mem_alloc"] += 1
        if size < 1:
            raise LogicError("cuMemAlloc failed: invalid argument")
        if sum(held.size for held in self.memory.values()) + size > self.memory_limit:
            raise FakeMemoryError("cuMemAlloc failed: out of memory")
        return Allocation(self, size)

    def pagelocked_empty(self, shape: int, dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
        self.current()
        self.calls["pagelocked_empty"] += 1
        if sum(self.locked.values()) + shape > self.locked_limit:
            raise FakeMemoryError("cuMemHostAlloc failed: out of memory")
        block = PageLocked(shape)
        array = np.frombuffer(block, dtype)
        address = array.ctypes.data
        self.locked[address] = shape
        weakref.finalize(block, self.locked.pop, address)
        return array

    def room(self, address: int, size: int) -> None:
        """That a range lies inside one live allocation."""
        if not any(base <= address and address + size <= base + held.size for base, held in self.memory.items()):
            raise MisuseError(f"{size} bytes at {address:#x} are not inside device memory")

    def memcpy_htod_async(self, dest: int, src: np.ndarray[Any, np.dtype[Any]], stream: Stream) -> None:
        self.current()
        assert type(dest) is int and src.flags.c_contiguous
        self.room(dest, src.nbytes)
        first = src.ctypes.data
        locked = any(base <= first and first + src.nbytes <= base + size for base, size in self.locked.items())
        self.calls["copies up" if locked else "pageable copies up"] += 1
        self.calls["bytes up"] += src.nbytes

        def copy() -> None:
            self.room(dest, src.nbytes)
            ctypes.memmove(dest, first, src.nbytes)

        stream.work.append(copy)

    def memcpy_dtoh(self, dest: np.ndarray[Any, np.dtype[Any]], src: int) -> None:
        self.wait()
        self.room(src, dest.nbytes)
        ctypes.memmove(dest.ctypes.data, src, dest.nbytes)

    def memcpy_dtoh_async(self, dest: np.ndarray[Any, np.dtype[Any]], src: int, stream: Stream) -> None:
        self.current()
        assert type(src) is int and dest.flags.c_contiguous
        self.room(src, dest.nbytes)
        first = dest.ctypes.data
        if not any(base <= first and first + dest.nbytes <= base + size for base, size in self.locked.items()):
            raise MisuseError("an asynchronous copy into memory that is not page-locked")
        self.calls["copies down"] += 1

        def copy() -> None:
            self.room(src, dest.nbytes)
            ctypes.memmove(first, src, dest.nbytes)

        stream.work.append(copy)

    # Code

    def module_from_buffer(self, buffer: bytes) -> Module:
        self.current()
        self.failing("module_from_buffer")
        self.calls["module"] += 1
        if not buffer.startswith(MAGIC):
            raise LogicError("cuModuleLoadDataEx failed: device kernel image is invalid")
        made_for, here = json.loads(buffer[len(MAGIC) :]), self.capability[0] * 10 + self.capability[1]
        if here not in made_for["architectures"] and not 0 < made_for["ptx"] <= here:
            raise LogicError("cuModuleLoadDataEx failed: no kernel image is available for execution on the device")
        return Module(self)

    def compile(
        self,
        source: str,
        nvcc: str = "nvcc",
        options: list[str] | None = None,
        no_extern_c: bool = False,
        arch: str | None = None,
        cache_dir: bool | str | None = None,
        include_dirs: list[str] | None = None,
    ) -> bytes:
        if not no_extern_c:
            raise CompileError("templates cannot have C linkage")
        if cache_dir is not False:
            raise MisuseError("pycuda would keep a cache of its own")
        self.failing("compile")
        if not Path(nvcc).is_file():
            raise FileNotFoundError(nvcc)
        assert isinstance(options, list) and arch is not None and include_dirs is not None
        assert all((Path(include_dirs[0]) / line.split('"')[1]).is_file() for line in source.splitlines())
        self.compiled.append({"arch": arch, "options": options})
        return code(int(arch.removeprefix("sm_")))

    # Launches

    def execute(self, dtype: str, blocks: int, threads: int, packed: bytes) -> None:
        """Run preprocess.cu on the host, once everything it would touch is known to be there."""
        if self.fault_at_launch:
            self.fault = LaunchError("an illegal memory access was encountered")
            return
        if len(packed) != ctypes.sizeof(Parameters) + 3 * 8:
            raise MisuseError(f"{len(packed)} bytes of arguments")
        plan = Parameters.from_buffer_copy(packed)
        tables, pixels, out = struct.unpack("PPP", packed[ctypes.sizeof(Parameters) :])
        columns, rows = math.ceil(plan.width / 128), math.ceil(plan.height / 8)
        if (blocks, threads) != (columns * rows * plan.planes, 256):
            raise MisuseError(f"{blocks} blocks of {threads} threads are not what preprocess.cu asks for")
        last = (plan.slices - 1) * plan.slice_stride + (plan.rows - 1) * plan.row_stride + plan.columns
        voxels = plan.planes * plan.channels * plan.height * plan.width
        self.room(tables, 4 * (7 * plan.slices + 3))
        self.room(pixels, 2 * last)
        self.room(out, voxels * np.dtype(dtype).itemsize)
        if plan.paired and (pixels % 4 or plan.row_stride % 2 or plan.slice_stride % 2):
            raise MisuseError("pairs of pixels at odd addresses")
        pointers = [ctypes.c_void_p(pointer) for pointer in (tables, pixels, out)]
        failed = self.library.run_preprocess(ctypes.byref(plan), *pointers[:2], DTYPE_CODES[dtype], pointers[2])
        assert failed == 0


@contextlib.contextmanager
def fake_cuda(
    library: ctypes.CDLL, install: Callable[[dict[str, ModuleType]], None], **machine: Any
) -> Iterator[FakeCuda]:
    """A fake machine whose pycuda is installed; afterwards, that no thread left a context pushed."""
    cuda = FakeCuda(library, **machine)
    install(cuda.modules)
    yield cuda
    if left := [*itertools.chain(*cuda._stacks.values())]:
        raise MisuseError(f"{len(left)} contexts are still pushed: pycuda aborts such a process at its end")
