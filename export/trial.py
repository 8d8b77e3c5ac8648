"""One trial: a child process with one engine, which may hang, crash or fail without taking anything else with it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

import edgehem
from edgehem.backends import OPEN_S, Backend, Options
from edgehem.errors import BackendError
from edgehem.export.compile_child import receive, send

Say = Callable[[str], None]

RUN_S = 60.0
LINGER_S = 5.0
"""How much later than its parent's patience a child ends itself."""


class Trial:
    """A child process and the engine in it. A context manager: the child is gone afterwards.

    Parameters
    ----------
    engine : Backend
        Made anew in the child: a class of an importable module, called without arguments.
    """

    def __init__(self, engine: Backend) -> None:
        self._engine = f"{type(engine).__module__}:{type(engine).__qualname__}"
        place = str(Path(edgehem.__file__).resolve().parent.parent)
        path = [*(entry or str(Path.cwd()) for entry in sys.path), place]
        program = f"import sys; sys.path[:] = {path!r}; from edgehem.export.compile_child import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def examine(self, *, patience_s: float = OPEN_S) -> tuple[str, tuple[str, ...]]:
        """Why the engine is missing, or empty; and its arithmetics.

        Raises
        ------
        BackendError
            If the engine hangs, crashes or fails: the message is a clause that says so.
        """
        said, _ = self._ask({"do": "examine", "engine": self._engine}, b"", "being looked at", patience_s)
        return str(said["missing"]), tuple(said["arithmetics"])

    def open(
        self, graph: bytes, options: Options, *, patience_s: float = OPEN_S, say: Say = lambda line: None
    ) -> tuple[float, str]:
        """Open a graph.

        Parameters
        ----------
        graph : bytes
        options : Options
        patience_s : float
        say : callable
            Gets what the engine says of a long build; ``options.build.say`` stays here.

        Returns
        -------
        ms : float
            The time that took, with the engine's import.
        plan : str
            Id of the plan behind it (:mod:`edgehem.plans`), or empty.

        Raises
        ------
        BackendError
            As :meth:`examine`.
        """
        build = options.build
        message = {
            "do": "open",
            "engine": self._engine,
            "arithmetic": options.arithmetic,
            "optimise": options.optimise,
            "threads": options.threads,
            "cache": None if options.cache is None else str(options.cache),
            "bundle": options.bundle,
            "build": build and {"workspace_mib": build.workspace_mib, "level": build.level},
        }
        said, _ = self._ask(message, graph, "compiling", patience_s, say)
        return float(said["ms"]), str(said["plan"])

    def answer(self, probe: Path, *, patience_s: float = RUN_S) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs for a probe (an ``.npz`` of the inputs).

        Raises
        ------
        BackendError
            As :meth:`examine`.
        """
        message = {"do": "run", "probe": str(probe), "answers": True}
        _, packed = self._ask(message, b"", "running", patience_s)
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as outputs:
                return {name: outputs[name] for name in outputs.files}
        except (OSError, ValueError) as error:
            raise BackendError("the engine's answer cannot be read") from error

    def time(self, probe: Path, *, patience_s: float = RUN_S) -> float:
        """Time of one run, ms.

        Raises
        ------
        BackendError
            As :meth:`examine`.
        """
        said, _ = self._ask({"do": "run", "probe": str(probe), "answers": False}, b"", "running", patience_s)
        return float(said["ms"])

    def end(self) -> None:
        """End the child with whatever it started."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ask(
        self, message: dict[str, Any], payload: bytes, doing: str, patience_s: float, say: Say = lambda line: None
    ) -> tuple[dict[str, Any], bytes]:
        """Send a message and wait for the reply; what the child says before it is passed on."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._kill()

        assert self._process.stdin is not None and self._process.stdout is not None
        timer = threading.Timer(patience_s, give_up)
        timer.daemon = True
        timer.start()
        reply = None
        try:
            with contextlib.suppress(OSError):  # it is gone: what it ended with is told below
                send(self._process.stdin, {**message, "patience_s": patience_s + LINGER_S}, payload)
                while (reply := receive(self._process.stdout)) is not None and "said" in reply[0]:
                    say(str(reply[0]["said"]))
        finally:
            timer.cancel()
        if reply is None:
            if late.is_set():
                raise BackendError(f"{doing} took longer than {patience_s:g} s")
            raise BackendError(f"the engine ended its process while {doing} ({self._last_words()})")
        if "error" in reply[0]:
            raise BackendError(str(reply[0]["error"]))
        return reply

    def _last_words(self) -> str:
        """How the child ended."""
        try:
            status = self._process.wait(LINGER_S)
        except subprocess.TimeoutExpired:
            return "it says nonsense"
        try:
            return signal.Signals(-status).name if status < 0 else f"exit status {status}"
        except ValueError:
            return f"signal {-status}"

    def _kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
