"""The same job by other libraries, each used as somebody would who knows it well: one module a library.

What all share: stored values go in as int16 and the windowed float32 tensor comes out; rescaling is folded into the
windows where the library lets its user do so; buffers are kept wherever it can write into one.
"""

from __future__ import annotations

from edgehem.benchmarks.case import Job
from edgehem.benchmarks.contender import Contender
from edgehem.benchmarks.peers import monai, opencv, scipy, simpleitk, torch


def contenders(job: Job) -> tuple[Contender, ...]:
    """Every peer that does a job."""
    return tuple(peer for library in (opencv, simpleitk, scipy, torch, monai) for peer in library.contenders(job))
