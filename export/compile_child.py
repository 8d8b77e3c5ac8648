"""The child's side of a trial: opens one graph on one engine, and runs it when it is told to.

Engines are native code: one may hang or crash while it compiles a graph, and must then do so here. Messages are a line
of JSON and as many bytes as it says; they come on standard input and go to what was standard output. The parent's side
is :mod:`edgehem.export.trial`.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem import kernels
from edgehem.backends import Backend, Build, Options, Session
from edgehem.errors import EdgehemError

LONGEST_LINE = 2**16


def send(stream: IO[bytes], message: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Write one message."""
    stream.write(msgspec.json.encode({**message, "bytes": len(payload)}) + b"\n")
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None when the other side is gone or says nonsense."""
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        return None
    try:
        message = msgspec.json.decode(line, type=dict[str, Any])
        size = int(message.pop("bytes"))
        payload = stream.read(size)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return None
    return (message, payload) if len(payload) == size else None


class Worker:
    """One engine, and the graph that was opened on it.

    Parameters
    ----------
    say : callable
        Tells the parent how far a long piece of work is.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._engine: Backend | None = None
        self._session: Session | None = None
        self._say = say
        self._inputs: dict[str, npt.NDArray[Any]] = {}

    def answer(self, message: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Do what a message says."""
        work = {"examine": self._examine, "open": self._open, "run": self._run}[message["do"]]
        return work(message, payload)

    def _examine(self, message: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        module, _, name = message["engine"].partition(":")
        self._engine = engine = getattr(import_module(module), name)()
        missing = engine.missing()
        return {"missing": missing, "arithmetics": [] if missing else list(engine.arithmetics())}, b""

    def _open(self, message: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        begun = time.perf_counter()
        self._examine(message, b"")
        assert self._engine is not None
        cache, build = message["cache"], message["build"]
        options = Options(
            arithmetic=message["arithmetic"],
            optimise=message["optimise"],
            threads=message["threads"],
            cache=None if cache is None else Path(cache),
            bundle=message["bundle"],
            build=None if build is None else Build(**build, say=self._say),
        )
        self._session = session = self._engine.open(payload, options)
        return {"ms": _since(begun), "plan": getattr(session, "plan", "")}, b""

    def _run(self, message: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Run one probe from an aligned buffer that is kept, as the runtime does."""
        assert self._session is not None
        with np.load(message["probe"]) as probe:
            for name in probe.files:
                source = probe[name]
                if name not in self._inputs:
                    self._inputs[name] = kernels.empty(source.shape, source.dtype.name)
                self._inputs[name][...] = source
        begun = time.perf_counter()
        outputs = self._session.run(self._inputs)
        spent = _since(begun)
        if not message["answers"]:
            return {"ms": spent}, b""
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **outputs)
        return {"ms": spent}, packed.getvalue()


def main() -> None:
    """Answer until the parent closes its end."""
    # Whatever a library prints must not come between the messages.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = Worker(lambda line: send(replies, {"said": line}))
    while (received := receive(sys.stdin.buffer)) is not None:
        message, payload = received
        # Should the parent be gone when this one hangs, nobody else would end it.
        faulthandler.dump_traceback_later(float(message["patience_s"]), exit=True, file=sys.__stderr__ or sys.stderr)
        try:
            reply, content = worker.answer(message, payload)
        except EdgehemError as error:
            reply, content = {"error": str(error)}, b""
        except Exception as error:  # an engine raises what it likes
            reply, content = {"error": f"the engine failed ({type(error).__name__})"}, b""
        faulthandler.cancel_dump_traceback_later()
        send(replies, reply, content)


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1e3
