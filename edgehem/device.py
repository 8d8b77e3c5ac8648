"""The device file: what ``edgehem compile`` measured on this machine, and which engine and graph ``auto`` takes for it.

It lies outside the bundle (:func:`edgehem.state.state_folder`) and belongs to one bundle on one machine. A file that is
stale, damaged or another user's is passed over, with a sentence in the log, and ``auto`` is what the bundle says.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from edgehem import state
from edgehem.backends import Options, engines
from edgehem.bundle import Bundle
from edgehem.machine import usable_cpus

_log = logging.getLogger(__name__)

SCHEMA = "edgehem.device/1"
MOST_BYTES = 2**20
MOST_FILES = 64
"""Device files kept at most; the oldest go."""
TIE = 0.03
"""Candidates within 3 % of the fastest count as equally fast: two runs of the same one differ by as much."""

CPU_INFO = Path("/proc/cpuinfo")
FLAGS = frozenset({
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2",
})  # fmt: skip
"""What decides how fast an engine is: x86-64 and aarch64 instruction sets for float, bfloat16 and int8."""
_MODEL_KEYS = ("model name", "CPU implementer", "CPU part", "Hardware", "Model")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the measurements depend on beside the bundle.

    Parameters
    ----------
    system, architecture, cpu : str
    flags : tuple of str
        Of :data:`FLAGS`, sorted.
    cpus : int
        That the process may use.
    engines : dict of str to str
        Version of every engine edgehem knows; empty where it is not installed.
    edgehem : str
    """

    system: str
    architecture: str
    cpu: str
    flags: tuple[str, ...]
    cpus: int
    engines: dict[str, str]
    edgehem: str

    @property
    def hardware(self) -> str:
        """A short name for the parts that no upgrade changes."""
        parts = (self.system, self.architecture, self.cpu, " ".join(self.flags), str(self.cpus))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def differences(self, other: Machine) -> list[str]:
        """What is not the same, in words: there and here."""
        found = [
            f"{name} {getattr(self, name)!s:.60}, not {getattr(other, name)!s:.60}"
            for name in ("system", "architecture", "cpu", "flags", "cpus", "edgehem")
            if getattr(self, name) != getattr(other, name)
        ]
        for name in sorted({*self.engines, *other.engines}):
            then, now = self.engines.get(name, ""), other.engines.get(name, "")
            if then != now:
                found.append(f"{name} {then or 'not installed'}, now {now or 'not installed'}")
        return found


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One engine with one graph in one arithmetic, and what came of it.

    Parameters
    ----------
    engine, arithmetic : str
    graph, form, precision, sha256 : str
        The bundle's file, as the manifest has it.
    open_ms, median_ms : float, optional
        To open it in a fresh process, the engine's import included; to run one input.
    ratio : tuple of float, optional
        Time of ONNX Runtime's float32 over this one's, paired round by round: quartile, median, quartile.
    shift : float, optional
        Worst difference of a calibrated probability to the reference.
    flips : int, optional
        Decisions that differ from the reference's, borderline ones left out.
    sqnr_db : float, optional
        Of the heads' outputs, to the reference: signal to quantisation noise.
    fidelity_db : float, optional
        Of every output, to the same graph run as it is written: what the engine changed by optimising it.
    passed_over : str
        Why it may not be chosen; empty if it may.
    """

    engine: str
    graph: str
    form: str
    precision: str
    sha256: str
    arithmetic: str
    open_ms: float | None = None
    median_ms: float | None = None
    ratio: tuple[float, float, float] | None = None
    shift: float | None = None
    flips: int | None = None
    sqnr_db: float | None = None
    fidelity_db: float | None = None
    passed_over: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.engine} {self.graph} {self.arithmetic}"

    @property
    def simplicity(self) -> tuple[bool, bool, bool]:
        """Sorts the simpler first: float before int8, ONNX Runtime before others, float32 before other arithmetics."""
        return (self.form != "float", self.engine != "onnxruntime", self.arithmetic != "f32")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of a device file.

    Parameters
    ----------
    schema : str
    bundle, version, sha256 : str
        Name and version of the bundle, and the SHA-256 of its manifest.
    machine : Machine
    made : str
        When, UTC, ISO 8601.
    probes : dict
        What the candidates were asked: kind, count, seeds.
    reference : str
        What accuracy is measured against.
    budget : dict
        The limits that were applied.
    candidates : tuple of Candidate
    absent : dict of str to str
        Engines that are not installed, and why not.
    chosen : int
        Index of the candidate that ``auto`` takes.
    """

    schema: str = SCHEMA
    bundle: str
    version: str
    sha256: str
    machine: Machine
    made: str
    probes: dict[str, Any]
    reference: str
    budget: dict[str, float]
    candidates: tuple[Candidate, ...]
    absent: dict[str, str]
    chosen: int

    @property
    def choice(self) -> Candidate:
        """The candidate that ``auto`` takes."""
        return self.candidates[self.chosen]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to open.

    Parameters
    ----------
    engine : str
    graph : str
        File of the bundle's graph; ``sha256`` is the one the manifest has for it.
    sha256 : str
    options : Options
    """

    engine: str
    graph: str
    sha256: str
    options: Options


def this_machine() -> Machine:
    """The machine this process runs on. Loads no engine."""
    cpu, flags = _processor()
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cpu=cpu,
        flags=flags,
        cpus=usable_cpus(),
        engines={engine.name: engine.version() for engine in engines()},
        edgehem=_version(),
    )


def pick(candidates: Sequence[Candidate]) -> int | None:
    """Index of the simplest of the fastest: see :data:`TIE`. None if none may be chosen."""
    able = {index: each.ratio[1] for index, each in enumerate(candidates) if not each.passed_over and each.ratio}
    if not able:
        return None
    best = max(able.values())
    near = [index for index, ratio in able.items() if ratio * (1 + TIE) >= best]
    return min(near, key=lambda index: (candidates[index].simplicity, -able[index]))


def place(bundle: Bundle, machine: Machine) -> Path:
    """Path of the device file. Raises OSError if there is no folder for it."""
    return _folder() / f"{_stem(bundle)}-{machine.hardware}.json"


def plans() -> Path:
    """The folder for what engines compile. Raises OSError if there is none."""
    return state.state_folder() / "plans"


def save(bundle: Bundle, record: Record) -> Path:
    """Write the device file in one step.

    Raises
    ------
    OSError
    """
    path = place(bundle, record.machine)
    state.write_private(path, msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    state.keep_newest(path.parent, "*.json", MOST_FILES)
    return path


def load(bundle: Bundle) -> Record | None:
    """Read the device file of a bundle on this machine; None, and why in the log, if there is none that holds."""
    try:
        if not any(_folder().glob(f"{_stem(bundle)}-*.json")):
            return None  # where nothing was ever measured, not even versions are looked up
        machine = this_machine()
        path = place(bundle, machine)
        content = state.read_private(path, most=MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("The device file is not used: %s.", error)
        return None
    record = _parsed(content, bundle)
    if record is None:
        _log.warning(
            "The device file %s is damaged or of another kind: not used; run edgehem compile again.", path.name
        )
        return None
    if different := record.machine.differences(machine):
        _log.warning(
            "What was measured for bundle %s does not hold any more (%s); run edgehem compile again.",
            bundle.manifest.name,
            "; ".join(different),
        )
        return None
    return record


def _parsed(content: bytes, bundle: Bundle) -> Record | None:
    """A record of this schema for this bundle, or None. Nothing of what it says is repeated."""
    try:
        record = msgspec.json.decode(content, type=Record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    fits = record.schema == SCHEMA and record.sha256 == bundle.sha256 and 0 <= record.chosen < len(record.candidates)
    return record if fits else None


def choice(bundle: Bundle, *, backend: str = "auto", precision: str = "auto") -> Choice | None:
    """What to open for a bundle, as it was measured on this machine.

    Parameters
    ----------
    bundle : Bundle
    backend, precision : str
        ``auto``, or what a candidate must have to be chosen.

    Returns
    -------
    Choice or None
        None if nothing was measured that holds here: the bundle's own default is taken then.
    """
    record = load(bundle)
    if record is None:
        return None
    if backend == precision == "auto":
        chosen: Candidate | None = record.choice
    else:
        asked = [
            each
            for each in record.candidates
            if backend in ("auto", each.engine) and precision in ("auto", each.precision)
        ]
        index = pick(asked)
        chosen = None if index is None else asked[index]
    if chosen is None:
        return None
    if chosen.passed_over or not any(
        (g.file, g.sha256) == (chosen.graph, chosen.sha256) for g in bundle.manifest.graphs
    ):
        _log.warning("The device file chooses what it must not, and is not used; run edgehem compile again.")
        return None
    try:
        options = Options(arithmetic=chosen.arithmetic, cache=plans(), bundle=bundle.sha256)
    except (ValueError, OSError):
        _log.warning("The device file names an arithmetic that edgehem does not know, and is not used.")
        return None
    return Choice(engine=chosen.engine, graph=chosen.graph, sha256=chosen.sha256, options=options)


def _folder() -> Path:
    return state.state_folder() / "devices"


def _stem(bundle: Bundle) -> str:
    return bundle.sha256[:32]


def _version() -> str:
    try:
        return metadata.version("edgehem")
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> tuple[str, tuple[str, ...]]:
    """Name of the CPU and its flags; where the system has no list of them, what Python says and none."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown", ()
    first: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            first.setdefault(key.strip(), value.strip())
    named = [first[key] for key in _MODEL_KEYS if first.get(key)]
    words = (first.get("flags") or first.get("Features") or "").split()
    return " ".join(named) or platform.processor() or "unknown", tuple(sorted(FLAGS.intersection(words)))
