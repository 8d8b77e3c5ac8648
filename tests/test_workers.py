"""Worker processes: answers in order, one thread each, and a process that dies is told.

Jobs are functions of the standard library: a spawned process cannot import this file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edgehem.errors import EdgehemError
from edgehem.workers import AHEAD, ONE_THREAD, ordered


def test_answers_come_in_the_order_of_the_jobs() -> None:
    assert list(ordered(str, list(range(40)), 2)) == [str(number) for number in range(40)]
    assert list(ordered(str, [], 2)) == []


def test_processes_have_one_thread_and_ours_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert list(ordered(os.getenv, list(ONE_THREAD), 2)) == ["1"] * len(ONE_THREAD)
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_what_a_job_raises_is_raised_after_the_answers_before_it() -> None:
    got = []
    with pytest.raises(ValueError, match="three"):
        got.extend(ordered(int, ["0", "1", "2", "three", *"456789"], 2))
    assert got == [0, 1, 2]


def test_a_process_that_dies_is_told_not_waited_for() -> None:
    with pytest.raises(EdgehemError, match="ended from outside"):
        list(ordered(os._exit, [9] * 20, 1))


def test_few_jobs_are_handed_out_ahead() -> None:
    """A thousand studies that wait to be looked at would fill the memory."""

    class Counted(list[int]):
        given = 0

        def __iter__(self) -> Iterator[int]:
            for item in list.__iter__(self):
                Counted.given += 1
                yield item

    for done, _ in enumerate(ordered(str, Counted(range(40)), 1), start=1):
        assert Counted.given <= done + AHEAD
