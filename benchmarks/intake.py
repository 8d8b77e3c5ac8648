"""``edgehem bench intake``: a folder of uncompressed slices to a stack, beside other readers, in one run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks import environment, timing
from edgehem.benchmarks.aims import Aim
from edgehem.benchmarks.readers import OURS, READERS, Read, Reader

SCHEMA = "edgehem.bench.intake/1"

ROUNDS, QUICK_ROUNDS = 15, 3
SLICES, MATRIX = (40, 300), 512
SEED = 6
VOXEL_MM = 2.0
"""Of the phantom's block: its detail does not matter here."""
FASTER = Aim(words="at least 1.5 x faster than the fastest", library="", bound=1.5)
MEMORY = Aim(words="memory at most 1.5 x the raw volume", library="edgehem", bound=1.5, at_most=True)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    rounds : int
    slices : sequence of int
        One job for each.
    matrix : int
    seed : int
        Of the orders.
    """

    rounds: int = ROUNDS
    slices: Sequence[int] = SLICES
    matrix: int = MATRIX
    seed: int = 0


def run(
    settings: Settings, *, readers: Sequence[Reader] = READERS, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Measure.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.intake/1``), ready for JSON, with every time in ns.
    """
    rng = np.random.default_rng(settings.seed)
    total, done = len(settings.slices) * (settings.rounds + 1), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    before, began = environment.load(), time.perf_counter()
    jobs = []
    for slices in settings.slices:
        with tempfile.TemporaryDirectory(prefix="edgehem-bench-") as folder:
            truth = write_series(Path(folder), slices, settings.matrix)
            jobs.append(_job(Path(folder), truth, readers, settings.rounds, rng, step))
    after = environment.load()
    return {
        "schema": SCHEMA,
        "settings": {"rounds": settings.rounds, "warm_up": timing.WARM_UP, "seed": settings.seed},
        "environment": environment.describe(),
        "load": {"before": before, "after": after, "stolen": environment.stolen(before, after)},
        "seconds": time.perf_counter() - began,
        "jobs": jobs,
        "aims": [aim for job in jobs for aim in judge(job)],
    }


def write_series(folder: Path, slices: int, matrix: int) -> npt.NDArray[np.float32]:
    """Write a phantom's slices, their files in no order; returns its HU [Z, Y, X]."""
    from edgehem.phantom import Protocol, make_case
    from edgehem.phantom.files import to_dicom

    protocol = Protocol(
        slices=slices, matrix=matrix, tilt_deg=0, variable_spacing=False, intercept=-1024, bits=16
    )  # fmt: skip
    case = make_case(SEED, protocol=protocol, voxel_mm=VOXEL_MM)
    for ds, number in zip(to_dicom(case), np.random.default_rng(1).permutation(slices), strict=True):
        ds.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    volume = case.volume
    return np.asarray(volume.pixels * volume.slope[:, None, None] + volume.intercept[:, None, None])


def _job(
    folder: Path,
    truth: npt.NDArray[np.float32],
    readers: Sequence[Reader],
    rounds: int,
    rng: np.random.Generator,
    step: Callable[[], None],
) -> dict[str, Any]:
    """One series: who agrees, how long each takes, and how much memory."""
    entries, passes = _admit(folder, truth, readers)
    step()
    # Every file was just read by every reader: the page cache is warm.
    taken = timing.interleave(passes, lambda: folder, rounds=rounds, rng=rng, sweep=lambda: None, progress=step)
    raw = truth.size * 2
    for entry in entries:
        if (ns := taken.get(entry["name"])) is None:
            continue
        low, middle, high = timing.quartiles(ns)
        entry |= {"ms": middle, "quartiles_ms": [low, high], "ns": ns}
        if OURS.name in taken:
            entry["over_ours"] = asdict(timing.ratio(ns, taken[OURS.name]))
        entry["memory_bytes"] = _memory(entry["name"], folder) if entry["name"] in _NAMES else None
        if entry["memory_bytes"] is not None:
            entry["memory_over_raw"] = entry["memory_bytes"] / raw
    slices, rows, columns = truth.shape
    return {
        "name": f"{slices} slices",
        "what": f"{slices} x {rows} x {columns}, 16 bits, uncompressed, {raw / 1e6:.0f} MB, warm page cache",
        "raw_bytes": raw,
        "contenders": entries,
    }


def _admit(
    folder: Path, truth: npt.NDArray[np.float32], readers: Sequence[Reader]
) -> tuple[list[dict[str, Any]], dict[str, Read]]:
    """Who is here and reads the right values: an entry for each, and the ways that may be timed."""
    entries, passes = [], {}
    for reader in readers:
        entry: dict[str, Any] = {"name": reader.name, "library": reader.library, "how": reader.how, "state": "timed"}
        entries.append(entry)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a peer's own affair
                read = reader.make()
                hu = reader.hounsfield(read(folder))
        except ModuleNotFoundError as error:
            entry |= {"state": "passed over", "why": f"{error.name} is not installed"}
            continue
        except Exception as error:  # a library of another version than this was written for ends its own part only
            entry |= {"state": "passed over", "why": f"failed: {type(error).__name__}: {error}"}
            continue
        finally:
            entry["version"] = _version(reader.module)
        if hu.shape != truth.shape:
            entry |= {"state": "DISAGREES", "why": f"its stack is {list(hu.shape)}, not {list(truth.shape)}"}
        elif not np.array_equal(hu, truth):
            largest = float(np.abs(hu.astype(np.float64) - truth).max())
            entry |= {"state": "DISAGREES", "why": f"off by up to {largest:g} HU"}
        else:
            passes[reader.name] = read
    return entries, passes


def judge(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Every aim on one measured job."""
    entries = {entry["name"]: entry for entry in job["contenders"] if entry["state"] == "timed"}
    peers = [entry for name, entry in entries.items() if name != OURS.name and "over_ours" in entry]
    fastest = min(peers, key=lambda entry: float(entry["ms"]), default=None)
    ratio = fastest["over_ours"] if fastest else None
    share = entries.get(OURS.name, {}).get("memory_over_raw")
    memory = {"value": share, "low": share, "high": share} if share is not None else None
    return [
        {
            "job": job["name"],
            "aim": aim.words,
            "bound": aim.bound,
            "contender": name,
            "measured": measured,
            "verdict": aim.verdict(measured["low"], measured["high"]) if measured else "not measured",
        }
        for aim, name, measured in (
            (FASTER, fastest["name"] if fastest else "", ratio),
            (MEMORY, OURS.name, memory),
        )
    ]


_NAMES = {reader.name: reader for reader in READERS}


def _memory(name: str, folder: Path) -> int | None:
    """Bytes that reading takes beyond what the imports did, in a process of its own."""
    code = "import sys; from edgehem.benchmarks import intake; intake.tell_memory(sys.argv[1], sys.argv[2])"
    command = [sys.executable, "-W", "ignore", "-c", code, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None


def tell_memory(name: str, folder: str) -> None:
    """What :func:`_memory` runs: prints the growth of the peak."""
    read = _NAMES[name].make()
    before = environment.peak_memory()
    found = read(Path(folder))
    sys.stdout.write(f"{environment.peak_memory() - before}\n")
    del found


def _version(module: str) -> str | None:
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return None
