"""Long work says how far it is, on stderr."""

from __future__ import annotations

import sys
import time


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Progress:
    """A one-line progress report on stderr: done, total, rate, time left."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.start, self.shown = title, total, time.monotonic(), 0.0
        self.terminal = sys.stderr.isatty()

    def show(self, done: int, extra: str = "") -> None:
        """Print at most once a second on a terminal, once in 20 s elsewhere."""
        now = time.monotonic()
        if done < self.total and now - self.shown < (1 if self.terminal else 20):
            return
        self.shown = now
        left = (now - self.start) / max(done, 1) * (self.total - done)
        line = f"{self.title}: {done}/{self.total} {extra}({now - self.start:.0f} s, {left:.0f} s left)"
        sys.stderr.write(f"\r{line}   " if self.terminal else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the line."""
        if self.terminal:
            say("")
