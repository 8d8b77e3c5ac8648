"""Plans: what an engine made of a graph for one machine, kept for the next start, and what it had to show before.

A plan is executable code, belongs to one device, driver and engine version, and two builds of the same graph do not
compute the same. So a plan is kept under everything that decided it (its key), is read only from a folder of this user
alone and only if its SHA-256 is the one it was written with, and serves only after it was *qualified*: its answers were
compared with the reference's (``edgehem compile``). Nothing here makes a plan.

A build has a record and a file with the plan's bytes, both named after the key and the plan's hash. Two processes that
build at once leave two builds, and neither touches the other's; where both made the same bytes there is one build, and
it has to be qualified after the last of them kept it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgehem import state
from edgehem.errors import PlanError

_log = logging.getLogger(__name__)

SCHEMA = "edgehem.plan/1"
MOST_BUILDS = 24
"""Builds kept at most; the oldest go."""
MOST_PLAN_BYTES = 2**31
MOST_RECORD_BYTES = 2**20
GRAPH, BUNDLE = "graph", "bundle"
"""Parts of every key: SHA-256 of the graph, and of the manifest of its bundle."""
_ID = re.compile(r"[a-z0-9-]{1,40}-[0-9a-f]{32}-[0-9a-f]{16}")


class Qualification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a build showed before it was let to serve.

    Parameters
    ----------
    reference : str
        What its answers were compared with.
    probes : dict
        What both were asked.
    shift, flips, sqnr_db, fidelity_db
        See :class:`edgehem.device.Candidate`.
    made : str
        When, UTC, ISO 8601.
    """

    reference: str
    probes: dict[str, Any]
    shift: float
    flips: int
    sqnr_db: float
    fidelity_db: float
    made: str


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One build.

    Parameters
    ----------
    schema, engine : str
    key : dict of str to str
        Everything that decided the plan, in words.
    sha256 : str
        Of the plan, which has ``bytes`` bytes.
    settings : dict
        What the builder was told.
    details : dict
        What it made: layers and their precisions, memory, what it warned of.
    made : str
        When, UTC, ISO 8601.
    qualified : Qualification, optional
        None until the build showed that it computes what the graph says.
    """

    schema: str = SCHEMA
    engine: str
    key: dict[str, str]
    sha256: str
    bytes: int
    settings: dict[str, Any]
    details: dict[str, Any]
    made: str
    qualified: Qualification | None = None

    @property
    def id(self) -> str:
        """Names the build's two files."""
        return f"{_stem(self.engine, self.key)}-{self.sha256[:16]}"


class PlanStore:
    """The builds of one user on one machine.

    Parameters
    ----------
    folder : Path
        Made when the first build is kept, with mode 0700; read only while it has that mode and this owner.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(
        self, engine: str, key: Mapping[str, str], plan: bytes, *, settings: dict[str, Any], details: dict[str, Any]
    ) -> str:
        """Keep a build that is not yet qualified; its id.

        Raises
        ------
        OSError
        """
        record = Record(
            engine=engine,
            key=dict(key),
            sha256=hashlib.sha256(plan).hexdigest(),
            bytes=len(plan),
            settings=settings,
            details=details,
            made=_now(),
        )
        # The record first: a process that is killed between the two leaves a record that says nothing, not a plan
        # that nobody would ever remove.
        self._write(record)
        state.write_private(self._plan_path(record), plan)
        self._prune()
        return record.id

    def qualify(self, id: str, *, reference: str, probes: dict[str, Any], figures: Mapping[str, float]) -> None:
        """Let a build serve, with what it showed: ``shift``, ``flips``, ``sqnr_db`` and ``fidelity_db``.

        Raises
        ------
        PlanError
            If there is no such build, or it is damaged, or it showed something that is no number.
        OSError
        """
        record = self._record(id)
        try:
            content = state.read_private(self._plan_path(record), most=MOST_PLAN_BYTES)
        except OSError as error:
            raise PlanError(f"plan {id} cannot be read ({error.strerror or error})") from error
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise PlanError(f"plan {id} is not the one that was compared with the reference")
        shown = Qualification(
            reference=reference,
            probes=probes,
            shift=float(figures["shift"]),
            flips=int(figures["flips"]),
            sqnr_db=float(figures["sqnr_db"]),
            fidelity_db=float(figures["fidelity_db"]),
            made=_now(),
        )
        if not all(map(math.isfinite, (shown.shift, shown.sqnr_db, shown.fidelity_db))):
            raise PlanError(f"plan {id} was compared with the reference, and what it showed is no number")
        self._write(msgspec.structs.replace(record, qualified=shown))

    def load(self, engine: str, key: Mapping[str, str]) -> tuple[bytes, Record]:
        """The newest qualified build for a key.

        Raises
        ------
        PlanError
            If there is none, with the reason: what differs, or what is wrong with those there are.
        """
        wrong = []
        for record in self._newest(f"{_stem(engine, key)}-*.json"):
            if record.key != dict(key):
                continue
            if record.qualified is None:
                wrong.append("it was never compared with the reference")
                continue
            try:
                content = state.read_private(self._plan_path(record), most=MOST_PLAN_BYTES)
            except OSError as error:
                wrong.append(f"it cannot be read ({error.strerror or error})")
                continue
            if hashlib.sha256(content).hexdigest() == record.sha256:
                return content, record
            wrong.append("it is damaged")
        reason = wrong[0] if wrong else self._why_none(engine, key)
        raise PlanError(f"there is no plan of {engine} that may serve this graph here: {reason}; run edgehem compile")

    def records(self) -> list[Record]:
        """Every build there is, the newest first; none where the folder cannot be trusted."""
        return list(self._newest("*.json"))

    def _why_none(self, engine: str, key: Mapping[str, str]) -> str:
        """What keeps the nearest build from fitting."""
        apart: list[list[str]] = []
        for record in self.records():
            if record.engine == engine and record.key.get(GRAPH) == key.get(GRAPH):
                names = sorted({*record.key, *key})
                apart.append([
                    f"{name} was {record.key.get(name, 'absent')}, is {key.get(name, 'absent')}"
                    if name not in (GRAPH, BUNDLE)
                    else f"it is of another {name}"
                    for name in names
                    if record.key.get(name) != key.get(name)
                ])  # fmt: skip
        nearest = min(apart, key=len, default=[])
        return "; ".join(nearest) if nearest else "none was made"

    def _newest(self, pattern: str) -> Iterator[Record]:
        for id in self._ids(pattern):
            with contextlib.suppress(PlanError):
                yield self._record(id)

    def _ids(self, pattern: str) -> list[str]:
        """Of every record, readable or not, the newest first."""
        try:
            state.check_private(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("Plans are not used: %s.", error)
            return []
        aged = []
        for path in self.folder.glob(pattern):
            with contextlib.suppress(OSError):
                aged.append((path.lstat().st_mtime_ns, path.stem))
        return [id for _, id in sorted(aged, reverse=True) if _ID.fullmatch(id)]

    def _record(self, id: str) -> Record:
        if not _ID.fullmatch(id):
            raise PlanError("that is no plan's name")
        try:
            content = state.read_private(self.folder / f"{id}.json", most=MOST_RECORD_BYTES)
            record = msgspec.json.decode(content, type=Record)
        except OSError as error:
            raise PlanError(f"the record of plan {id} cannot be read ({error.strerror or error})") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PlanError(f"the record of plan {id} is damaged") from error
        if record.schema != SCHEMA or record.id != id:
            raise PlanError(f"the record of plan {id} is damaged or of another kind")
        return record

    def _write(self, record: Record) -> None:
        content = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
        state.write_private(self.folder / f"{record.id}.json", content)

    def _plan_path(self, record: Record) -> Path:
        return self.folder / f"{record.id}.bin"

    def _prune(self) -> None:
        for id in self._ids("*.json")[MOST_BUILDS:]:
            # The plan first, as it was written last: no plan stays without its record.
            for suffix in ("bin", "json"):
                with contextlib.suppress(OSError):
                    (self.folder / f"{id}.{suffix}").unlink(missing_ok=True)


def _stem(engine: str, key: Mapping[str, str]) -> str:
    text = "\n".join(f"{name}={key[name]}" for name in sorted(key))
    return f"{engine}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
