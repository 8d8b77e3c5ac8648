"""Build the kernels: the native twin for this machine's CPU, and CUDA code for named architectures.

``pip install`` runs :func:`compile_native` where there is a C++ compiler. Ahead of time for GPUs, on any machine with
nvcc: ``python -m edgehem.kernels.build``. Imports nothing but the standard library: setup.py loads this file by path.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUILT = HERE / "built"
"""What was built for this machine; not a package, so that nobody takes the library for a Python module."""

NATIVE_LIBRARY = "native.so"
NATIVE_UNITS = ("native.cpp", "masks.cpp")
ROWS_UNIT = "rows.cpp"
HEADERS = ("formulas.h", "rows.h", "masks.h")
CXX_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions",
    "-fno-rtti", "-pthread", "-Wall", "-Wextra",
)  # fmt: skip
X86_ROWS = {"avx2": ("-march=x86-64-v3",), "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512")}
"""Instruction sets beyond the compiler's baseline. None fuses a multiplication with an addition: see formulas.h."""

CUDA_UNITS = ("preprocess.cu", "masks.cu")
CUDA_HEADERS = ("formulas.h", "masks.h")
CUDA_FLAGS = ("-std=c++17", "-O3", "-fmad=false")
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
"""Turing, A100, RTX 30, Jetson Orin, RTX 40, H100/H200, B100/B200, Jetson Thor, RTX 50."""
FATBIN = "edgehem_kernels.fatbin"


class BuildError(RuntimeError):
    """A compiler is missing or refused."""


def source_hash(names: Sequence[str], folder: Path = HERE) -> str:
    """SHA-256 over the named sources, in order."""
    digest = hashlib.sha256()
    for name in names:
        content = (folder / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def native_hash(folder: Path = HERE) -> str:
    """Hash of what the native twin is built from."""
    return source_hash((*HEADERS, ROWS_UNIT, *NATIVE_UNITS), folder)


def cuda_hash(folder: Path = HERE) -> str:
    """Hash of what the CUDA kernels are built from, flags included."""
    return hashlib.sha256(
        (source_hash((*CUDA_HEADERS, *CUDA_UNITS), folder) + " ".join(CUDA_FLAGS)).encode()
    ).hexdigest()


def compile_native(out: Path, *, compiler: str | None = None, extra: Sequence[str] = ()) -> Path:
    """Build the native twin.

    Parameters
    ----------
    out : Path
        The library to write.
    compiler : str, optional
        ``$CXX``, else g++, else clang++.
    extra : sequence of str
        More flags, for sanitizers or another target.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    BuildError
    """
    compiler = compiler or os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise BuildError("no C++ compiler: neither $CXX nor g++ nor clang++")
    command = compiler.split()
    # [unit, object, flags]; the rows once per instruction set.
    work = [(ROWS_UNIT, "rows_baseline", ["-DEH_ROWS=eh_rows_baseline"])]
    if _targets_x86(command):
        work += [(ROWS_UNIT, f"rows_{isa}", [f"-DEH_ROWS=eh_rows_{isa}", *flags]) for isa, flags in X86_ROWS.items()]
    work += [(unit, unit.replace(".", "_"), [f'-DEH_SOURCE="{native_hash()}"']) for unit in NATIVE_UNITS]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:

        def compile_unit(unit: str, name: str, flags: Sequence[str]) -> str:
            target = f"{scratch}/{name}.o"
            _run([*command, *CXX_FLAGS, *flags, *extra, "-c", str(HERE / unit), "-o", target])
            return target

        objects = list(pool.map(lambda item: compile_unit(*item), work))
        linked = Path(scratch) / out.name
        _run([*command, "-shared", "-pthread", *extra, *objects, "-o", str(linked)])
        out.parent.mkdir(parents=True, exist_ok=True)
        _replace(linked.read_bytes(), out)
    return out


def compile_cuda(out: Path, architectures: Sequence[int] = ARCHITECTURES, *, nvcc: str | None = None) -> dict[str, Any]:
    """Build the CUDA kernels for several architectures, with PTX of the newest for those to come.

    Parameters
    ----------
    out : Path
        Folder that gets the fatbin and, beside it, a JSON record of what it was built from.
    architectures : sequence of int
        Compute capabilities, 87 for 8.7.
    nvcc : str, optional

    Returns
    -------
    dict
        The record.

    Raises
    ------
    BuildError
    """
    nvcc = nvcc or find_nvcc()
    if not nvcc:
        raise BuildError("no nvcc: install the CUDA toolkit, or let the device compile at first use")
    if not architectures:
        raise BuildError("no architecture named")
    newest, version = max(architectures), nvcc_version(nvcc)
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in sorted(set(architectures))]
    codes.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "kernels.cu"
        source.write_text(cuda_source(), encoding="utf-8")
        built = Path(scratch) / FATBIN
        # Sixteen times smaller, where nvcc can.
        compress = ["--compress-mode=size"] if _release(version) >= (12, 8) else []
        _run(
            [
                nvcc,
                *CUDA_FLAGS,
                *codes,
                *compress,
                "--threads",
                "0",
                "-I",
                str(HERE),
                "-fatbin",
                str(source),
                "-o",
                str(built),
            ]
        )
        content = built.read_bytes()
    record = {
        "schema": "edgehem.fatbin/1",
        "source": cuda_hash(),
        "architectures": sorted(set(architectures)),
        "ptx": newest,
        "nvcc": version,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    _replace(content, out / FATBIN)
    _replace((json.dumps(record, indent=1) + "\n").encode(), (out / FATBIN).with_suffix(".json"))
    return record


def cuda_source() -> str:
    """One translation unit with all CUDA kernels."""
    return "".join(f'#include "{unit}"\n' for unit in CUDA_UNITS)


def find_nvcc() -> str | None:
    """On the PATH, else under ``$CUDA_HOME``, ``$CUDA_PATH`` or /usr/local/cuda: a service's PATH seldom has it."""
    folders = [*filter(None, map(os.environ.get, ("CUDA_HOME", "CUDA_PATH"))), "/usr/local/cuda"]
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(f"{folder}/bin" for folder in folders))


def nvcc_version(nvcc: str) -> str:
    """The last line that ``nvcc --version`` prints: its build."""
    return _run([nvcc, "--version"]).strip().splitlines()[-1]


def _release(version: str) -> tuple[int, int]:
    """``Build cuda_13.0.r13.0/...`` is (13, 0); what cannot be read is old."""
    found = re.search(r"cuda_(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _targets_x86(command: Sequence[str]) -> bool:
    machine = _run([*command, "-dumpmachine"]).strip().partition("-")[0]
    return (machine or platform.machine()) in ("x86_64", "amd64")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr.strip()[-4000:]}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)
    return done.stdout


def _replace(content: bytes, out: Path) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(name).chmod(0o755 if out.suffix == ".so" else 0o644)
        Path(name).replace(out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: exit code 0, or 1 with the compiler's words."""
    parser = argparse.ArgumentParser(prog="python -m edgehem.kernels.build", description=__doc__)
    parser.add_argument(
        "--arch", type=int, nargs="+", default=list(ARCHITECTURES), metavar="CC", help="compute capabilities, as 87"
    )
    parser.add_argument("--out", type=Path, default=BUILT, help="folder for the fatbin (default: the package)")
    parser.add_argument("--native", action="store_true", help="build the CPU library instead")
    options = parser.parse_args(arguments)
    try:
        if options.native:
            print(compile_native(options.out / NATIVE_LIBRARY))
        else:
            record = compile_cuda(options.out, options.arch)
            print(options.out / FATBIN)
            print(f"architectures {record['architectures']}, PTX {record['ptx']}; {record['nvcc']}")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
