"""Where a device's code comes from: built ahead for named architectures, else compiled here at first use.

Ahead of time: ``python -m edgehem.kernels.build`` leaves a fatbin and its record beside the sources. It is used only if
it was built from the sources that lie there now, is what its record says, and has something for the device and for its
driver. Otherwise nvcc compiles for this device alone, which takes seconds, so the result is kept in the user's cache
under what it was made from: sources and flags, architecture, compiler. A cache that is damaged or cannot be written
costs time, never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgehem.kernels import build, cuda_driver
from edgehem.kernels.cuda_driver import Driver, Module
from edgehem.kernels.errors import KernelUnavailableError

CACHE = "EDGEHEM_CACHE"
"""Environment variable: the folder for what is compiled here."""

FOLDER = build.BUILT
"""Where the fatbin and its record lie."""

MAGIC = b"edgehem.cubin/1"


TEGRA = frozenset({53, 62, 72, 87, 110})
"""Jetsons: their machine code is theirs alone (CUDA C++ Programming Guide, Binary Compatibility)."""

log = logging.getLogger(__name__)


class CodeError(RuntimeError):
    """One place has no code for this device; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Something the driver can load: ``origin`` names the candidate, ``detail`` is for a person."""

    content: bytes
    origin: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What code must fit: compute capability (90 for 9.0), and the CUDA version of the driver (13000 for 13.0)."""

    capability: int
    driver: int

    @classmethod
    def of(cls, driver: Driver, capability: tuple[int, int]) -> Machine:
        return cls(capability=capability[0] * 10 + capability[1], driver=driver.get_driver_version())


PREBUILT = "cuda prebuilt"
COMPILED = "cuda compiled here"


def load(driver: Driver, machine: Machine) -> tuple[Module, Code]:
    """Load the kernels into the current context, from the first place that has them.

    Raises
    ------
    KernelUnavailableError
        With what each place lacks.
    """
    reasons = []
    places: tuple[Callable[[Machine], Code], ...] = (prebuilt, cached, compiled)
    for place in places:
        try:
            code = place(machine)
            module = driver.module_from_buffer(code.content)
        except CodeError as error:
            log.debug("CUDA kernels: %s", error)
            reasons.append(str(error))
        except driver.MemoryError:
            raise
        except driver.Error as error:
            reasons.append(f"{code.detail}: the driver does not load it ({error})")
        else:
            if place is compiled:
                keep(machine, code.content)
            log.info("CUDA kernels: %s.", code.detail)
            return module, code
    raise KernelUnavailableError("; ".join(reasons))


def prebuilt(machine: Machine) -> Code:
    """The fatbin that was built ahead.

    Raises
    ------
    CodeError
    """
    path = FOLDER / build.FATBIN
    again = "(to build it: python -m edgehem.kernels.build)"
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        content = path.read_bytes()
        architectures, ptx = [int(a) for a in record["architectures"]], int(record["ptx"])
        source, digest, nvcc = str(record["source"]), str(record["sha256"]), str(record["nvcc"])
    except FileNotFoundError:
        raise CodeError(f"not built ahead {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodeError(f"its record cannot be read: {type(error).__name__} {again}") from error
    if source != _sources():
        raise CodeError(f"built from other sources {again}")
    if digest != hashlib.sha256(content).hexdigest():
        raise CodeError(f"the file is not the one its record describes {again}")
    made_for = _made_for(machine, architectures, ptx)
    _check_driver(machine, nvcc, from_ptx=made_for.startswith("PTX"))
    return Code(content=content, origin=PREBUILT, detail=f"built ahead, {made_for}")


def _made_for(machine: Machine, architectures: list[int], ptx: int) -> str:
    """Which part of a fatbin a device runs."""
    # Machine code runs on its own architecture and on later ones of the same generation; PTX on all later ones.
    here = machine.capability
    same = [a for a in architectures if a // 10 == here // 10 and a <= here and (a == here or not {a, here} & TEGRA)]
    if same:
        return f"sm_{max(same)}"
    if ptx <= machine.capability:
        return f"PTX of {ptx / 10:.1f}, translated by the driver"
    named = ", ".join(map(str, sorted(architectures)))
    raise CodeError(f"built for {named}, not for {machine.capability} (python -m edgehem.kernels.build --arch ...)")


def _check_driver(machine: Machine, nvcc: str, *, from_ptx: bool) -> None:
    """Refuse what an old driver refuses: machine code of a newer major CUDA version, PTX of any newer one."""
    found = re.search(r"cuda_(\d+)\.(\d+)", nvcc)
    if found is None:
        return  # the driver has the last word in any case
    toolkit = int(found[1]) * 1000 + int(found[2]) * 10
    if machine.driver < (toolkit if from_ptx else toolkit // 1000 * 1000):
        raise CodeError(f"built with CUDA {version(toolkit)}, and the driver knows up to {version(machine.driver)}")


def version(number: int) -> str:
    """13000 -> 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


# Compiled here


def cache_folder() -> Path:
    """``$EDGEHEM_CACHE``, else ``$XDG_CACHE_HOME/edgehem``, else ``~/.cache/edgehem``; OSError without a home."""
    if named := os.environ.get(CACHE):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "edgehem"
    try:
        return Path.home() / ".cache" / "edgehem"
    except RuntimeError as error:
        raise OSError(f"no folder for it: set {CACHE}") from error


def cached(machine: Machine) -> Code:
    """What an earlier run compiled for this device, from these sources, with this compiler.

    Where there is no compiler any more, one of any version will do: the flags fix the arithmetic.

    Raises
    ------
    CodeError
    """
    nvcc = build.find_nvcc()
    why_not = "nothing compiled here before"
    try:
        found = sorted(cache_folder().glob(_entry(machine, _compiler_version(nvcc) if nvcc else None)))
    except OSError as error:
        raise CodeError(f"the cache cannot be read: {error}") from error
    for path in found:
        try:
            head, _, content = path.read_bytes().partition(b"\n")
        except OSError as error:
            why_not = f"what was compiled here cannot be read: {error}"
            continue
        if head == b"%b %b" % (MAGIC, hashlib.sha256(content).hexdigest().encode()):
            return Code(content=content, origin=COMPILED, detail=f"compiled here for sm_{machine.capability}, cached")
        why_not = f"what was compiled here is damaged: {path.name}"
        log.warning("CUDA kernels: %s.", why_not)
    raise CodeError(why_not)


def compiled(machine: Machine) -> Code:
    """Compile for this device: seconds.

    Raises
    ------
    CodeError
    """
    nvcc = build.find_nvcc()
    if nvcc is None:
        raise CodeError("no nvcc to compile with here")
    architecture = f"sm_{machine.capability}"
    log.info("CUDA kernels: compiling for %s, once for this device.", architecture)
    try:
        with warnings.catch_warnings(record=True) as said:  # pycuda warns of whatever nvcc prints
            warnings.simplefilter("always")
            content = cuda_driver.compiler().compile(
                build.cuda_source(),
                nvcc=nvcc,
                options=list(build.CUDA_FLAGS),
                no_extern_c=True,
                arch=architecture,
                cache_dir=False,
                include_dirs=[str(build.HERE)],
            )
    except Exception as error:  # pycuda.driver.CompileError, OSError, and what its helpers raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("CUDA kernels: %s", error)
        raise CodeError(f"nvcc does not compile for {architecture}: {lines[0]}") from error
    for warning in said:
        log.debug("%s", warning.message)
    return Code(content=content, origin=COMPILED, detail=f"compiled here for {architecture}")


def keep(machine: Machine, content: bytes) -> None:
    """Put code into the cache: a reader finds all of it or none of it. Where that fails, it is said and no more."""
    nvcc = build.find_nvcc()
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, scratch = tempfile.mkstemp(dir=folder, prefix=".new.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(b"%b %b\n" % (MAGIC, hashlib.sha256(content).hexdigest().encode()) + content)
            Path(scratch).replace(folder / _entry(machine, _compiler_version(nvcc) if nvcc else ""))
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(scratch).unlink()
    except OSError as error:
        log.warning("CUDA kernels: compiled, but not kept for the next start: %s", error)


def _sources() -> str:
    try:
        return build.cuda_hash()
    except OSError as error:
        raise CodeError(f"the kernels' sources are not installed: {error}") from error


def _compiler_version(nvcc: str) -> str:
    try:
        return build.nvcc_version(nvcc)
    except (build.BuildError, IndexError):
        return "unknown"


def _entry(machine: Machine, compiler: str | None) -> str:
    """Name of a cache entry; with no compiler, a pattern for those of any."""
    made_with = "*" if compiler is None else hashlib.sha256(compiler.encode()).hexdigest()[:16]
    return f"kernels-{_sources()[:32]}-sm_{machine.capability}-{made_with}.cubin"
