"""NNCF: OpenVINO's own quantiser. Its graph runs in OpenVINO with the very options that ours get."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgehem.backends import DEFAULT, OPEN_S, Options
from edgehem.backends.openvino import OpenVino, OpenVinoSession, core
from edgehem.errors import BackendError

NAME = "nncf"
FOLDER = "EDGEHEM_BENCH_NNCF"
"""Environment variable: the folder of what NNCF quantised. Children that time an engine make it anew and look there."""
PATIENCE_S = 1200.0
HOW = "nncf.quantize of the float graph for CPUs, with its defaults, on the same calibration data"
ONLY = "the-only-input"
_TELEMETRY = "openvino_telemetry"


class Nncf:
    """OpenVINO with NNCF's graph in place of the float one; see :class:`edgehem.backends.Backend`.

    Only the benchmark knows it: no ``auto`` chooses it.
    """

    name = NAME
    forms = ("float",)
    patience_s = OPEN_S
    on_request = False
    needs_plan = False

    def missing(self) -> str:
        """Empty where something was quantised and OpenVINO is there."""
        return OpenVino().missing() if os.environ.get(FOLDER) else "it quantised nothing"

    def version(self) -> str:
        """Of the installed package, or empty."""
        try:
            return metadata.version(NAME)
        except metadata.PackageNotFoundError:
            return ""

    def arithmetics(self) -> tuple[str, ...]:
        """OpenVINO's. Raises BackendError."""
        return OpenVino().arithmetics()

    def open(self, graph: bytes, options: Options = DEFAULT) -> OpenVinoSession:
        """Compile what NNCF made of a float graph.

        Raises
        ------
        BackendError
            If it made nothing of this one, or as :meth:`OpenVino.open`.
        """
        path = place(Path(os.environ.get(FOLDER, "")), graph)
        if not path.is_file():
            raise BackendError("NNCF quantises float graphs itself")
        # OpenVINO reads a model from bytes or by its path; what NNCF made is two files.
        return OpenVino().open(cast(bytes, str(path)), options)


@contextlib.contextmanager
def offered(folder: Path | None) -> Iterator[None]:
    """Where the children find what was quantised, while this lasts; nothing for None."""
    before = os.environ.get(FOLDER)
    if folder is not None:
        os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(FOLDER, None)
        else:
            os.environ[FOLDER] = before


def prepare(
    graph: Path,
    shipped: bytes,
    samples: Sequence[npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]],
    folder: Path,
    *,
    batch: int,
) -> str:
    """Quantise a graph, in a child: NNCF prints, reports to its maker unless it is kept from it, and loads torch.

    Parameters
    ----------
    graph : Path
        ``.onnx``, float, with a free batch.
    shipped : bytes
        The same graph as the engines get it: what :meth:`Nncf.open` is asked for.
    samples : sequence of arrays, or of dicts of input name to array
        What its ranges are taken from, each with a batch of 1. Arrays where the graph has one input.
    folder : Path
        For :func:`offered`.
    batch : int
        Written into the quantised graph.

    Returns
    -------
    str
        Why there is nothing; empty if there is.
    """
    for module in ("nncf", "openvino"):
        if util.find_spec(module) is None:
            return f"{module} is not installed"
    folder.mkdir(exist_ok=True)
    data = folder / "calibration.npz"
    feed = [sample if isinstance(sample, Mapping) else {ONLY: sample} for sample in samples]
    stacks: dict[str, npt.NDArray[Any]] = {name: np.stack([inputs[name] for inputs in feed]) for name in feed[0]}
    np.savez(data, allow_pickle=False, **stacks)
    code = "import sys; from edgehem.benchmarks.peers import nncf; nncf.quantise(*sys.argv[1:])"
    command = [sys.executable, "-W", "ignore", "-c", code]
    command += [str(graph), str(data), str(place(folder, shipped)), str(batch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"it quantised for more than {PATIENCE_S:g} s"
    finally:
        data.unlink()
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1][:200]}"
    return ""


def quantise(graph: str, data: str, out: str, batch: str) -> None:
    """What the child of :func:`prepare` runs."""
    sys.modules[_TELEMETRY] = cast(Any, None)  # fails to import: NNCF and OpenVINO then report to nobody
    import nncf
    import openvino

    model = core().read_model(graph)
    with np.load(data, allow_pickle=False) as stored:
        stacks = {(model.inputs[0].any_name if name == ONLY else name): stored[name] for name in stored.files}
    count = len(next(iter(stacks.values())))
    dataset = nncf.Dataset([{name: stack[i] for name, stack in stacks.items()} for i in range(count)])
    quantised = nncf.quantize(model, dataset, target_device=nncf.TargetDevice.CPU, subset_size=count)
    quantised.reshape({name: [int(batch), *stack.shape[2:]] for name, stack in stacks.items()})
    openvino.save_model(quantised, out, compress_to_fp16=False)


def place(folder: Path, graph: bytes) -> Path:
    """Where :func:`prepare` puts what NNCF made of a graph."""
    return folder / f"{hashlib.sha256(graph).hexdigest()}.xml"
