"""The items of a DICOM sequence: a bounded walk that enters only the sequences asked for, and never recurses.

References
----------
DICOM PS3.5 section 7.5 (sequences of items, of defined and undefined length).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

from edgehem.dicom.elements import (
    ITEM,
    ITEM_END,
    MAX_FRAME_ELEMENTS,
    MAX_VALUE,
    SEQUENCE_END,
    UNDEFINED,
    Cursor,
    DamagedError,
    Encoding,
    Span,
    skip_sequence,
)

TagPath = tuple[int, ...]
"""Tags from an item down to a value: ``(0x00209113, 0x00200032)`` is Plane Position / Image Position (Patient)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a sequence.

    Parameters
    ----------
    offset : int
        Where the item starts in the file.
    values : dict
        Raw value by path, for the paths asked for. Different values at one path (a sequence inside with several items,
        or an element twice) are joined by backslashes: what asks for one number then finds none.
    """

    offset: int
    values: dict[TagPath, bytes] = field(default_factory=dict)


class _Level(NamedTuple):
    in_item: bool
    end: int | None
    encoding: Encoding
    path: TagPath


def read_items(data: bytes, span: Span, wanted: Set[TagPath], *, most: int) -> list[Item]:
    """Read the items of one sequence.

    Parameters
    ----------
    data : bytes
        The header, from the first byte of the file, to the end of the sequence at least.
    span : Span
        Where the sequence lies.
    wanted : set of TagPath
        What is kept.
    most : int
        Items at most.

    Returns
    -------
    list of Item

    Raises
    ------
    DamagedError
        If the bytes are not well-formed, or there are more items than ``most``.
    """
    entered = {path[:depth] for path in wanted for depth in range(1, len(path))}
    cursor = Cursor(data, len(data))
    cursor.limit = MAX_FRAME_ELEMENTS
    items: list[Item] = []
    levels = [_Level(False, span.end, span.encoding, ())]  # innermost last; no deeper than the longest path
    position = span.start
    while levels:
        level = levels[-1]
        if position == level.end:
            levels.pop()
            continue
        tag, vr, length, start = cursor.element(position, level.encoding, strict=False)
        if level.end is None and tag == (ITEM_END if level.in_item else SEQUENCE_END):
            levels.pop()
            position = start
            continue
        end = None if length == UNDEFINED else start + length
        if max(start, end or 0) > (level.end or len(data)):
            raise DamagedError
        inside = level.encoding._replace(implicit=level.encoding.implicit or vr == b"UN")
        path = (*level.path, tag)
        if not level.in_item:
            if tag != ITEM or len(items) >= most + (len(levels) > 1):
                raise DamagedError
            if len(levels) == 1:
                items.append(Item(position))
            levels.append(_Level(True, end, level.encoding, level.path))
            position = start
        elif path in entered:
            levels.append(_Level(False, end, inside, path))
            position = start
        elif end is None:
            position = skip_sequence(cursor, start, inside)
        else:
            if path in wanted:
                _keep(items[-1].values, path, data[start : start + min(length, MAX_VALUE)])
            position = end
    return items


def _keep(values: dict[TagPath, bytes], path: TagPath, value: bytes) -> None:
    known = values.setdefault(path, value)
    if known != value and len(known) < MAX_VALUE:
        values[path] = known + b"\\" + value
