"""From what on a change of a case's latency matters: a file, so that a gate's rules are reviewed like code.

``thresholds.json`` beside this module holds the project's own. Fields:

==================  ========================================================================================
minimum_effect      share by which a median must change to be SLOWER or FASTER, and within which it is SAME
minimum_ms          a case whose median is shorter, in both results, is TOO SHORT: the clock and the call
                    around it would be judged
minimum_rounds      with fewer, a case is AMBIGUOUS, whatever they say
memory_growth       share by which the peak of memory must grow to be flagged
memory_bytes        and by how many bytes at least
cases               exceptions: ``name`` (a pattern: ``*``, ``?``, ``[...]``), ``why`` (a sentence), and the fields
                    above that are other. The last that matches wins, field by field
==================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from edgehem import strict_json
from edgehem.errors import UsageError

SCHEMA: Final = "edgehem.latency-thresholds/1"
FILE = Path(__file__).with_name("thresholds.json")
LEAST_ROUNDS = 12
"""No file may ask for fewer: with fewer than six blocks there is no interval to speak of."""

Share = Annotated[float, msgspec.Meta(gt=0, le=10)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Rounds = Annotated[int, msgspec.Meta(ge=LEAST_ROUNDS, le=100_000)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one case; see the module's table."""

    minimum_effect: float
    minimum_ms: float
    minimum_rounds: int
    memory_growth: float
    memory_bytes: int


class Exemption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is other for the cases that a pattern names."""

    name: Words
    why: Words
    minimum_effect: Share | None = None
    minimum_ms: Milliseconds | None = None
    minimum_rounds: Rounds | None = None
    memory_growth: Share | None = None
    memory_bytes: Bytes | None = None


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of thresholds; see the module's table."""

    schema: Literal["edgehem.latency-thresholds/1"] = SCHEMA
    minimum_effect: Share = 0.05
    minimum_ms: Milliseconds = 0.2
    minimum_rounds: Rounds = 20
    memory_growth: Share = 0.1
    memory_bytes: Bytes = 8 << 20
    cases: tuple[Exemption, ...] = ()

    def of(self, case: str) -> Limits:
        """What holds for a case."""
        found = {field: getattr(self, field) for field in Limits.__struct_fields__}
        for exception in self.cases:
            if fnmatchcase(case, exception.name):
                found |= {field: value for field in found if (value := getattr(exception, field)) is not None}
        return Limits(**found)

    def unused(self, cases: Iterable[str]) -> list[str]:
        """Patterns that name none of these cases."""
        there = list(cases)
        return [each.name for each in self.cases if not any(fnmatchcase(case, each.name) for case in there)]


def load(path: Path | None = None) -> Thresholds:
    """Read a file of thresholds; the project's own where none is given.

    Raises
    ------
    UsageError
        If there is none, or it is not as the schema has it.
    """
    try:
        return strict_json.decode((path or FILE).read_bytes(), Thresholds)
    except OSError as error:
        raise UsageError(f"the thresholds cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the thresholds are not as {SCHEMA} has them: {error}") from error


def plain(thresholds: Thresholds) -> dict[str, Any]:
    """As plain values, for JSON."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(thresholds))
    return values
