"""JSON from somebody who may be hostile: one meaning, bounded depth, bounded numbers.

JSON readers differ on what an object with the same key twice means. A file that is signed must mean the same to the
person who looks at it and to the program that acts on it, so such files are refused.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeVar

import msgspec

MAX_DEPTH = 32
"""Objects and arrays inside one another."""
MAX_DIGITS = 64
"""Characters of one number. Long ones take time that grows with the square of their length."""
MAX_INTEGER = 2**53
"""Above it, readers that keep numbers as float64 see another integer (RFC 8259, section 6)."""
_MAX_MESSAGE = 300

T = TypeVar("T")


def decode(raw: bytes, kind: type[T]) -> T:
    """A value of a type.

    Parameters
    ----------
    raw : bytes
        UTF-8, of a size that the caller has bounded.
    kind : type
        What :func:`msgspec.json.decode` is asked for.

    Raises
    ------
    ValueError
        If it is not JSON, is not of that type, names a key twice, is nested deeper than 32 levels, or holds a number
        that is not finite, has more than 64 characters or is an integer beyond 2**53. The message is one printable
        line, whatever the file holds.

    References
    ----------
    RFC 8259, sections 4 (unique names) and 6 (numbers).
    """
    try:
        _check_depth(json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_no_number,
        ))  # fmt: skip
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise ValueError(_printable(str(error))) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it names the key {twice[:40]!r} twice")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS or abs(int(text)) > MAX_INTEGER:
        raise ValueError("it holds an integer beyond 2**53")
    return int(text)


def _float(text: str) -> float:
    if len(text) > MAX_DIGITS or not math.isfinite(float(text)):
        raise ValueError(f"it holds a number that is not finite, or has more than {MAX_DIGITS} characters")
    return float(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which JSON does not have")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [v for v in level if isinstance(v, (dict, list))]
        if not containers:
            return
        level = [inner for v in containers for inner in (v.values() if isinstance(v, dict) else v)]
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _printable(text: str) -> str:
    """One line that no terminal acts on: the message may quote the file."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_MESSAGE])
