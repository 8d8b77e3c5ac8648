"""Fuzz the intake: ``python tests/fuzz/intake.py --seconds 600 --seed 1``.

Studies are spoilt step by step (:mod:`mutate`, :mod:`structure`) and read in a child process under a memory cap and a
watchdog. A study that reaches lines of edgehem.dicom, or a note, that none reached before is kept and spoilt further.
What ends in anything but a study or a refusal is reduced to the steps it needs, and kept with its files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

HANG_S = 5.0
MEMORY_BYTES = 1536 * 2**20
GRACE_S = 10.0
"""Above the limit, before the watchdog kills: a slow case is then told from one without an end."""
MOST_EVENTS = 200_000
"""Lines of one case that are looked at for coverage: about 0.1 s."""
MOST_STEPS = 8
FRESH = 0.25
"""Share of cases that start anew from a sound study."""
STUDY = "a study"
DIRECTORY, STUDY_ZIP = "DICOMDIR", "study.zip"


@dataclass(frozen=True)
class Case:
    """What is read: a sound study by name, and the steps that spoil it."""

    study: str
    steps: tuple[int, ...]


@dataclass
class Findings:
    """What a run found."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[Case, dict[str, Any]]] = field(default_factory=dict)
    slowest: float = 0.0
    memory: int = 0


class Child:
    """The process that reads, started again whenever it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, case: Case) -> dict[str, Any]:
        """What came of a case: ``outcome`` and, unless the process ended, ``seconds``, ``memory``, ``lines``."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        begun = time.monotonic()
        try:
            process.stdin.write(json.dumps([case.study, case.steps]).encode() + b"\n")
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], HANG_S + GRACE_S)[0]
            answer = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, answer = [process.stdout], b""
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        outcome = "HANG: killed"
        if ready:
            process.wait()  # it has closed its end: it is gone, or about to be
            outcome = f"CRASH: the process ended with {process.returncode}"
        self.stop()
        return {"outcome": outcome, "notes": [], "seconds": time.monotonic() - begun, "memory": 0, "lines": []}

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, "--child", str(self._folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has loaded everything
        return self._process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def child(folder: Path) -> None:
    """Read cases from stdin until it closes; answer each on stdout."""
    import mutate

    from edgehem import dicom

    place = os.environ.get("EDGEHEM_TEST_DATA")
    studies = mutate.studies(Path(place) if place else None)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # C libraries may talk
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    home = str(Path(dicom.__file__).parent)
    seen: set[tuple[str, int]] = set()
    fresh: list[tuple[str, int]] = []
    events = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal events
        if not frame.f_code.co_filename.startswith(home):
            return None
        if event == "line":
            events += 1
            if events > MOST_EVENTS:
                sys.settrace(None)  # a long loop: what is timed is the reader, not the tracer
                return None
            spot = (frame.f_code.co_filename, frame.f_lineno)
            if spot not in seen:
                seen.add(spot)
                fresh.append(spot)
        return trace

    answers.write(json.dumps(sorted(studies)).encode() + b"\n")
    for line in sys.stdin:
        name, steps = json.loads(line)
        files = studies[name]
        for step in steps:
            files = mutate.spoil(files, step)
        shutil.rmtree(folder / STUDY, ignore_errors=True)
        (folder / STUDY).mkdir()
        for file, content in files.items():
            (folder / STUDY / file).write_bytes(content)
        # A DICOMDIR and its folder are two ways in; which of them, the steps tell.
        way = DIRECTORY if DIRECTORY in files and sum(steps) % 2 else STUDY_ZIP if list(files) == [STUDY_ZIP] else ""
        place = folder / STUDY / way
        fresh.clear()
        events = 0
        sys.settrace(trace)
        outcome, notes, taken = attempt(place)
        sys.settrace(None)
        if taken > HANG_S:
            outcome, notes, taken = attempt(place)  # as it is without a tracer
            outcome = f"HANG: over {HANG_S:g} s, {outcome}" if taken > HANG_S else outcome
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = {"outcome": outcome, "notes": notes, "seconds": taken, "memory": memory, "lines": fresh}
        answers.write(json.dumps(answer).encode() + b"\n")


def attempt(place: Path) -> tuple[str, list[str], float]:
    """Read a study: what came of it, in a word or two, the codes of its notes, and the seconds it took."""
    from edgehem.dicom import read_study
    from edgehem.errors import Refusal, UsageError
    from edgehem.preprocess import coverage_notes, locate_head

    begun, waited = time.monotonic(), _waited()
    notes: list[str] = []
    try:
        study = read_study(place)
        # What is read goes on to be placed: the part of the head that was scanned is said there.
        notes = [note.code.value for note in (*study.notes, *coverage_notes(locate_head(study.volume)))]
        outcome = "read"
    except Refusal as refusal:
        outcome = refusal.code.value
    except UsageError:
        outcome = "usage"
    except MemoryError:
        outcome = f"MEMORY: over {MEMORY_BYTES >> 20} MiB"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "edgehem" in Path(frame.filename).parts][-1]
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours, frames[-1])]
        where = " and ".join(dict.fromkeys(places))
        outcome = f"CRASH: {type(error).__name__} at {where}"
    return outcome, notes, time.monotonic() - begun - (_waited() - waited)


def _waited() -> float:
    """Seconds that this thread was ready to run while the machine ran something else: nobody's hang."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def fuzz(*, seconds: float, cases: int, seed: int, keep: Path, every_s: float = 30.0) -> Findings:
    """Run until the time is up or the cases are done."""
    rng = random.Random(seed)
    found = Findings()
    seen: set[tuple[str, int]] = set()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_fast()) as work:
        process = Child(Path(work))
        try:
            names = _names(process)
            pool = [Case(name, ()) for name in names]
            begun = told = time.monotonic()
            while time.monotonic() - begun < seconds and found.cases < cases:
                if found.cases < len(names):
                    case = pool[found.cases]  # every sound study first
                else:
                    parent = rng.choice(pool[: len(names)] if rng.random() < FRESH else pool)
                    more = tuple(rng.getrandbits(48) for _ in range(rng.choice((1, 1, 1, 2, 3))))
                    case = Case(parent.study, (*parent.steps, *more)[-MOST_STEPS:])
                answer = process.read(case)
                found.cases += 1
                found.outcomes[answer["outcome"]] += 1
                found.notes.update(answer["notes"])
                found.slowest = max(found.slowest, answer["seconds"])
                found.memory = max(found.memory, answer["memory"])
                new = {(file, line) for file, line in answer["lines"]} - seen
                if new or any(found.notes[note] == 1 for note in answer["notes"]):
                    seen |= new
                    pool.append(case)
                kind = answer["outcome"]
                if kind.partition(":")[0] in ("CRASH", "HANG", "MEMORY") and kind not in found.failures:
                    case = _reduced(process, case, kind)
                    found.failures[kind] = (case, answer)
                    _save(process, case, kind, Path(work), keep / f"{seed}-{len(found.failures)}")
                if time.monotonic() - told > every_s:
                    told = time.monotonic()
                    print(_line(found, len(seen), len(pool), told - begun), flush=True)
            print(_line(found, len(seen), len(pool), time.monotonic() - begun), flush=True)
        finally:
            process.stop()
    return found


def _fast() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _names(process: Child) -> list[str]:
    import mutate

    place = os.environ.get("EDGEHEM_TEST_DATA")
    return sorted(mutate.studies(Path(place) if place else None))


def _reduced(process: Child, case: Case, kind: str) -> Case:
    """The same failure with as few steps as it takes."""
    steps = list(case.steps)
    for step in list(steps):
        fewer = [other for other in steps if other != step]
        if process.read(Case(case.study, tuple(fewer)))["outcome"] == kind:
            steps = fewer
    return Case(case.study, tuple(steps))


def _save(process: Child, case: Case, kind: str, work: Path, target: Path) -> None:
    process.read(case)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(work / STUDY, target / STUDY)
    (target / "case.json").write_text(json.dumps({"outcome": kind, "study": case.study, "steps": case.steps}) + "\n")
    print(f"{kind}\n  from {case.study!r}, steps {list(case.steps)}, kept in {target}", flush=True)


def _line(found: Findings, lines: int, pool: int, seconds: float) -> str:
    return (
        f"{seconds:5.0f} s, {found.cases} cases ({found.cases / max(seconds, 1e-9):.0f}/s), {lines} lines reached, "
        f"{pool} kept, slowest {found.slowest:.2f} s, memory {found.memory / 2**20:.0f} MiB, "
        f"{len(found.failures)} failures"
    )


def never_reached(found: Findings) -> list[str]:
    """Codes that no case ended with. UNCERTAIN is the model's, not the intake's."""
    from edgehem.errors import Code

    return sorted({code.value for code in Code} - {Code.UNCERTAIN.value} - set(found.outcomes) - set(found.notes))


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where something failed."""
    parser = argparse.ArgumentParser(description="Fuzz the reading of studies.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="where failures are kept (%(default)s)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        child(options.child)
        return 0
    found = fuzz(seconds=options.seconds, cases=options.cases, seed=options.seed, keep=options.keep)
    for outcome, count in found.outcomes.most_common():
        print(f"{count:9d}  {outcome}")
    for note, count in found.notes.most_common():
        print(f"{count:9d}  read, with {note}")
    print("never reached:", ", ".join(never_reached(found)) or "none")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
