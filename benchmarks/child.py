"""A process that measures, and the questions it is asked: JSON, a line each way."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import edgehem
from edgehem.errors import EdgehemError

QUIET_S = 0.1
"""A pause between turns of processes: some libraries' threads spin for 50 ms and more after their work, on the
processors of the next one."""


class ChildError(EdgehemError, RuntimeError):
    """A process that measures ended, or failed at what it was asked for."""


class Child:
    """A process of this install, or of another one. A context manager: it is gone afterwards.

    Parameters
    ----------
    module : str
        Whose ``main`` calls :func:`serve`.
    python : str
        The interpreter.
    variables : sequence of (name, value)
        For its environment, beside this process's.
    """

    def __init__(self, module: str, *, python: str = sys.executable, variables: Sequence[tuple[str, str]] = ()) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if python == sys.executable:
            # It imports what this process imports, also from a folder that is on no default path.
            place = str(Path(edgehem.__file__).resolve().parent.parent)
            environment["PYTHONPATH"] = os.pathsep.join([*(entry for entry in sys.path if entry), place])
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment, **dict(variables)},
        )

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and wait for the answer.

        Raises
        ------
        ChildError
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"the process that measures ended (exit status {self._process.wait()})")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ChildError(reply["error"])
        return reply

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def serve(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The child's side: answer until the parent closes its end."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # told to the parent, which decides
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
