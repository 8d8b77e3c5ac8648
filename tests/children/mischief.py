"""What the children of the tests do. It is imported by them only, under its bare name."""

# ruff: noqa: PTH110, PTH115, PTH208

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time

from edgehem.sandbox.worker import TaskError


def _task(run):
    return lambda: run


@_task
def backwards(arguments, source, target):
    target[:] = bytes(reversed(source))


@_task
def pid(arguments, source, target):
    time.sleep(0.01)
    target[:] = os.getpid().to_bytes(8, "little")


@_task
def sleep(arguments, source, target):
    time.sleep(60)


@_task
def burn(arguments, source, target):
    while True:
        pass


@_task
def grow(arguments, source, target):
    kept = [bytearray(2**20) for _ in range(4096)]  # noqa: F841


@_task
def crash(arguments, source, target):
    os.kill(os.getpid(), signal.SIGSEGV)


@_task
def leave(arguments, source, target):
    os._exit(0)


@_task
def say_no(arguments, source, target):
    raise TaskError(7)


@_task
def stumble(arguments, source, target):
    raise RuntimeError("patient name")


@_task
def chatty(arguments, source, target):
    os.write(1, b"x" * 100_000)
    os.write(2, b"x" * 100_000)
    target[:] = bytes(reversed(source))


@_task
def rights(arguments, source, target):
    got = []
    for name, attempt in (
        ("file", lambda: os.open("/etc/hostname", os.O_RDONLY)),
        ("socket", socket.socket),
        ("pipe", os.pipe),
    ):
        try:
            attempt()
        except OSError:
            continue
        got.append(name)
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        got.append("core")
    if resource.getrlimit(resource.RLIMIT_FSIZE) != (0, 0):
        got.append("files grow")
    if any("SECRET" in name for name in os.environ):
        got.append("environment")
    if "onnxruntime" in sys.modules or "numpy" in sys.modules:
        got.append("modules")
    target[:] = ",".join(got).encode().ljust(len(target))


def _speaker(words):
    """Says `words` instead of a reply, on the pipe for replies."""

    def factory():
        pipes = [int(n) for n in os.listdir("/proc/self/fd") if n.isdigit() and int(n) > 2]
        pipes = [n for n in pipes if os.path.exists(f"/proc/self/fd/{n}")]
        pipes = [n for n in pipes if os.readlink(f"/proc/self/fd/{n}").startswith("pipe:")]

        def run(arguments, source, target):
            os.write(pipes[0], words)
            time.sleep(60)

        return run

    return factory


garbage = _speaker(b"\xff" * 16)
too_short = _speaker(b"EHre\1")
too_long = _speaker(b"EHre" * 400)
other_number = _speaker(b"EHre" + (77).to_bytes(4, "little") + b"\1\0\0\0" + (10).to_bytes(4, "little"))
other_length = _speaker(b"EHre" + (1).to_bytes(4, "little") + b"\1\0\0\0" + (11).to_bytes(4, "little"))
other_status = _speaker(b"EHre" + (1).to_bytes(4, "little") + b"\11\0\0\0" + (10).to_bytes(4, "little"))


def shrink():
    """Tries to pull the shared memory away from under the parent."""
    links = [(n, f"/proc/self/fd/{n}") for n in range(3, 50) if os.path.exists(f"/proc/self/fd/{n}")]
    segment = os.dup(next(n for n, link in links if "memfd" in os.readlink(link)))

    def run(arguments, source, target):
        try:
            os.ftruncate(segment, 0)
        except PermissionError:
            target[:] = b"it held ..."[: len(target)]

    return run


def leak():
    kept = []

    def run(arguments, source, target):
        kept.append(bytearray(20 * 2**20))
        target[:] = os.getpid().to_bytes(8, "little")

    return run


def closes_its_pipe():
    def run(arguments, source, target):
        os.closerange(3, 100)
        time.sleep(60)

    return run


def forks():
    def run(arguments, source, target):
        if os.fork() == 0:
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGSEGV)

    return run


def forks_quietly():
    def run(arguments, source, target):
        if os.fork() == 0:
            os.closerange(0, 100)
            time.sleep(60)
        os._exit(0)

    return run


def broken():
    import a_library_that_is_not_there  # noqa: F401


def dies():
    os._exit(3)
