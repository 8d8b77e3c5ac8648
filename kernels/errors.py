"""What goes wrong on a GPU, as types: the caller falls back, frees memory, or gives up the process.

They derive from builtins, not from edgehem's errors: this package stands alone.
"""

from __future__ import annotations


class KernelError(RuntimeError):
    """A kernel could not run, or the device that it ran on failed."""


class KernelUnavailableError(KernelError):
    """This machine has no GPU path: no pycuda, no device, or no code for it. The message says which."""


class KernelMemoryError(KernelError, MemoryError):
    """Device or page-locked memory is short; smaller work may still fit."""


class GridLimitError(KernelError, ValueError):
    """More blocks than one launch can have."""


class KernelLaunchError(KernelError):
    """The driver refused a call, or a kernel failed; the context still works."""


class ContextLostError(KernelError):
    """A kernel failed in a way that leaves its CUDA context unusable: only a new process recovers."""
