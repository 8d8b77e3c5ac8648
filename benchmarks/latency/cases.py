"""What is measured: the stages of a study, the engines, and whole studies.

A case is made inside the process that measures it. Its name is part of the result's contract: ``stage.decode/40`` is
the decoding of 40 slices, whatever the code that does it is called by then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgehem.bundle import Graph

SLICES = (28, 40, 64, 300)
USUAL = 40
DTYPES = ("float32", "float16", "int8")
BACK_TO_BACK = 4
"""Studies that follow each other without a pause, in the case of that name."""

Array = npt.NDArray[Any]
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A case that is ready to be timed.

    Parameters
    ----------
    calls : dict of str to callable
        Timed one after the other each round, in changing order: the case's own name, and what it is held against.
    fresh : callable
        Makes the round's input; not timed.
    bytes_moved : int, optional
        Read and written at least, by any implementation.
    own_clock : bool
        The calls return their time in ms, since what is measured happens in another process.
    details : dict
    """

    calls: Mapping[str, Call]
    fresh: Callable[[np.random.Generator], None] = lambda rng: None
    bytes_moved: int | None = None
    own_clock: bool = False
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure.

    Parameters
    ----------
    name, group, what : str
        `group` is ``stage``, ``engine`` or ``whole``; `what` a sentence for people.
    slices : int
        Of the study it needs; 0 if it needs none.
    compressed : bool
        Whether the study is to be compressed (RLE lossless).
    make : callable
        Gets the study's folder and the settings; makes it ready. LookupError, or an error of edgehem's, with a reason,
        where it cannot run here.
    share : float
        Of the usual number of rounds: slow cases get fewer.
    """

    name: str
    group: str
    what: str
    slices: int
    make: Callable[[Path, Settings], Ready]
    compressed: bool = False
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the worker is told about the bundle.

    Parameters
    ----------
    bundle, backend, precision : str
        As ``edgehem triage`` takes them.
    """

    bundle: str = "hemorrhagenet"
    backend: str = "auto"
    precision: str = "auto"


def cases(bundle: str = "hemorrhagenet") -> list[Case]:
    """Every case, in the order of a study; of engines, every graph of a bundle that each takes.

    Raises
    ------
    BundleError
    """
    return [*_stages(), *_engines(bundle), *_wholes()]


# Stages


def _stages() -> Iterator[Case]:
    for slices in SLICES:
        yield Case(
            name=f"stage.read/{slices}", group="stage", what="find the files and read their headers",
            slices=slices, make=_read,
        )  # fmt: skip
        yield Case(
            name=f"stage.decode/{slices}", group="stage", what="pixels of the chosen series to one stack",
            slices=slices, make=_decode,
        )  # fmt: skip
    yield Case(
        name=f"stage.decode_rle/{USUAL}", group="stage", what="the same from RLE lossless, in sandboxed children",
        slices=USUAL, make=_decode, compressed=True,
    )  # fmt: skip
    yield Case(
        name=f"stage.gates/{USUAL}", group="stage", what="look at the pixels: metal, motion, contrast, surgery",
        slices=USUAL, make=_gates,
    )  # fmt: skip
    for slices in (USUAL, 300):
        yield Case(
            name=f"stage.place/{slices}", group="stage", what="find the head and put the grid on it",
            slices=slices, make=_place,
        )  # fmt: skip
        for dtype in DTYPES:
            yield Case(
                name=f"stage.preprocess.{dtype}/{slices}", group="stage", what=f"the fused pass, to {dtype}",
                slices=slices, make=_preprocess(dtype),
            )  # fmt: skip
    yield Case(
        name=f"stage.decide/{USUAL}", group="stage", what="calibration, conformal sets, key slices",
        slices=USUAL, make=_decide,
    )  # fmt: skip
    yield Case(
        name=f"stage.report/{USUAL}", group="stage", what="the result as JSON and as text",
        slices=USUAL, make=_report,
    )  # fmt: skip


def _read(folder: Path, settings: Settings) -> Ready:
    from edgehem.dicom.scan import scan
    from edgehem.dicom.select import Selection, select

    def run() -> Selection:
        found = scan(folder)
        return select(found.headers, found.missing)

    return Ready(calls={"": run})


def _decode(folder: Path, settings: Settings) -> Ready:
    from edgehem.dicom.codec import DECODERS
    from edgehem.dicom.decode import decode
    from edgehem.dicom.scan import scan
    from edgehem.dicom.select import select

    stack = select(scan(folder).headers).candidates[0].stack
    syntax = str(stack.first.syntax)
    if syntax in DECODERS and not any(decoder.installed for decoder in DECODERS[syntax]):
        raise LookupError(f"no decoder for {syntax} is installed")
    pixels = (stack.first.rows or 0) * (stack.first.columns or 0) * len(stack.places) * 2
    files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Ready(calls={"": lambda: decode(stack)}, bytes_moved=files + pixels)


def _gates(folder: Path, settings: Settings) -> Ready:
    import edgehem
    from edgehem.dicom.gates import pass_gates

    volume = edgehem.read_study(folder).volume
    return Ready(calls={"": lambda: pass_gates(volume)}, bytes_moved=volume.pixels.nbytes)


def _place(folder: Path, settings: Settings) -> Ready:
    import edgehem
    from edgehem.bundle import find
    from edgehem.preprocess import place

    volume, spec = edgehem.read_study(folder).volume, find(settings.bundle).manifest.preprocess
    return Ready(calls={"": lambda: place(volume, spec)})


def _preprocess(dtype: str) -> Callable[[Path, Settings], Ready]:
    def make(folder: Path, settings: Settings) -> Ready:
        import msgspec

        import edgehem
        from edgehem import kernels
        from edgehem.bundle import find
        from edgehem.preprocess import fill, place

        volume = edgehem.read_study(folder).volume
        spec = msgspec.structs.replace(find(settings.bundle).manifest.preprocess, dtype=dtype, scale=1 / 127)
        placed = place(volume, spec)
        planes, rows, columns = spec.shape
        out = kernels.empty((1, planes, len(spec.windows), rows, columns), dtype)
        return Ready(
            calls={"": lambda: fill(volume, placed, spec, out=out)}, bytes_moved=volume.pixels.nbytes + out.nbytes
        )

    return make


def _decide(folder: Path, settings: Settings) -> Ready:
    import edgehem
    from edgehem.decide import decide
    from edgehem.evidence import key_slices
    from edgehem.model import Model
    from edgehem.preprocess import place

    model: Model = edgehem.load(settings.bundle, backend="onnxruntime")
    manifest, volume = model.bundle.manifest, edgehem.read_study(folder).volume
    placed = place(volume, manifest.preprocess)
    served = model.serving.served
    outputs, _ = served.answer(volume, placed, served.tensor(volume, placed))
    head, evidence = manifest.heads[0], manifest.evidence

    def run() -> None:
        decide(outputs[head.output][0], head)
        if evidence is not None:
            key_slices(volume, placed.target, outputs[evidence.attention][0], outputs[evidence.blood_map][0])

    return Ready(calls={"": run})


def _report(folder: Path, settings: Settings) -> Ready:
    import edgehem
    from edgehem.report.text import render_text

    result = edgehem.load(settings.bundle, backend="onnxruntime").triage_path(folder)[0]
    return Ready(calls={"": lambda: (result.to_json(), render_text(result))})


# Engines


def _engines(bundle: str) -> Iterator[Case]:
    from edgehem.backends import engines
    from edgehem.bundle import find

    yield Case(
        name="engine.served", group="engine", what="the engine and graph that serve here, one tensor", slices=0,
        make=_served,
    )  # fmt: skip
    graphs = find(bundle).manifest.graphs
    for engine in engines():
        if engine.needs_plan or not engine.version():
            continue
        for graph in graphs:
            if graph.form in engine.forms:
                yield Case(
                    name=f"engine.{engine.name}.{Path(graph.file).stem}", group="engine",
                    what=f"{engine.name} with {graph.file}, beside the bare library", slices=0,
                    make=_engine(engine.name, graph),
                )  # fmt: skip


def _tensor(bundle: Any, dtype: str) -> tuple[dict[str, Array], Callable[[np.random.Generator], None]]:
    """The graph's inputs, and what fills the image with fresh numbers."""
    from edgehem import kernels

    spec, names = bundle.manifest.preprocess, bundle.manifest.inputs
    planes, rows, columns = spec.shape
    image = kernels.empty((1, planes, len(spec.windows), rows, columns), dtype)
    inputs: dict[str, Array] = {names["image"]: image}
    if "valid" in names:
        inputs[names["valid"]] = np.ones((1, planes), np.float32)

    def fresh(rng: np.random.Generator) -> None:
        image[...] = rng.random(image.shape, np.float32)

    return inputs, fresh


def _served(folder: Path, settings: Settings) -> Ready:
    from edgehem.bundle import find
    from edgehem.serving import Serving

    bundle = find(settings.bundle)
    served = Serving(bundle, backend=settings.backend, precision=settings.precision).served
    inputs, fresh = _tensor(bundle, served.spec.dtype)
    return Ready(calls={"": lambda: served.session.run(inputs)}, fresh=fresh, bytes_moved=inputs["image"].nbytes)


def _engine(name: str, graph: Graph) -> Callable[[Path, Settings], Ready]:
    def make(folder: Path, settings: Settings) -> Ready:
        from edgehem.backends import F16, F32, Options, choose
        from edgehem.benchmarks.latency import bare
        from edgehem.bundle import HALF_FORMS, find

        half = graph.form in HALF_FORMS
        bundle = find(settings.bundle)
        session = choose(name).open(bundle.read(graph), Options(arithmetic=F16 if half else F32))
        inputs, fresh = _tensor(bundle, "float16" if half else bundle.manifest.preprocess.dtype)
        calls: dict[str, Call] = {"": lambda: session.run(inputs)}
        if (direct := bare.under(session)) is not None:
            bare.agree(session.run(inputs), direct(inputs))
            calls["bare"] = lambda: direct(inputs)
        return Ready(calls=calls, fresh=fresh)

    return make


# Whole studies


def _wholes() -> Iterator[Case]:
    yield Case(
        name=f"whole.cold/{USUAL}", group="whole", what="edgehem triage as a new process", slices=USUAL, make=_cold,
        share=0.5,
    )  # fmt: skip
    yield Case(
        name=f"whole.first/{USUAL}", group="whole", what="load the model and analyse the first study, in a new process",
        slices=USUAL, make=_first, share=0.5,
    )  # fmt: skip
    for slices in SLICES:
        yield Case(
            name=f"whole.warm/{slices}", group="whole", what="from the folder to the result, the model loaded",
            slices=slices, make=_warm,
        )  # fmt: skip
    yield Case(
        name=f"whole.warm_rle/{USUAL}", group="whole", what="the same, from RLE lossless", slices=USUAL, make=_warm,
        compressed=True,
    )  # fmt: skip
    yield Case(
        name=f"whole.onnxruntime/{USUAL}", group="whole", what="warm, with what needs no extra", slices=USUAL,
        make=_warm_onnxruntime,
    )  # fmt: skip
    yield Case(
        name=f"whole.back_to_back/{USUAL}", group="whole", what=f"{BACK_TO_BACK} studies without a pause",
        slices=USUAL, make=_back_to_back, share=0.5,
    )  # fmt: skip


def _warm(folder: Path, settings: Settings) -> Ready:
    import edgehem
    from edgehem.result import Verdict

    model = edgehem.load(settings.bundle, backend=settings.backend, precision=settings.precision)
    result, _ = model.triage_path(folder)
    if result.verdict is Verdict.NO_RESULT:
        raise LookupError(result.reasons[0])
    details = {"backend": result.bundle.backend, "precision": result.bundle.precision, "stages_ms": result.timings_ms}
    return Ready(calls={"": lambda: model.triage_path(folder)}, details=details)


def _warm_onnxruntime(folder: Path, settings: Settings) -> Ready:
    return _warm(folder, Settings(bundle=settings.bundle, backend="onnxruntime"))


def _back_to_back(folder: Path, settings: Settings) -> Ready:
    one = _warm(folder, settings).calls[""]

    def run() -> None:
        for _ in range(BACK_TO_BACK):
            one()

    return Ready(calls={"": run})


COMMAND = "import sys; from edgehem.cli import main; sys.exit(main())"
"""What the console script ``edgehem`` does."""


def _cold(folder: Path, settings: Settings) -> Ready:
    command = [
        sys.executable, "-c", COMMAND, "triage", str(folder), "--bundle", settings.bundle,
        "--backend", settings.backend, "--precision", settings.precision, "--json",
    ]  # fmt: skip

    def run() -> float:
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
        return (time.perf_counter() - begun) * 1e3

    return Ready(calls={"": run}, own_clock=True)


FIRST = """
import json, sys, time
from pathlib import Path
begun = time.perf_counter()
import edgehem
imported = time.perf_counter()
model = edgehem.load(sys.argv[2], backend=sys.argv[3], precision=sys.argv[4])
loaded = time.perf_counter()
model.triage_path(Path(sys.argv[1]))
print(json.dumps([(b - a) * 1e3 for a, b in ((begun, imported), (imported, loaded), (loaded, time.perf_counter()))]))
"""


def _first(folder: Path, settings: Settings) -> Ready:
    command = [sys.executable, "-c", FIRST, str(folder), settings.bundle, settings.backend, settings.precision]
    details: dict[str, Any] = {}

    def run() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
        imported, loaded, analysed = json.loads(done.stdout)
        details.update(import_ms=imported, load_ms=loaded, study_ms=analysed)
        return float(imported + loaded + analysed)

    return Ready(calls={"": run}, own_clock=True, details=details)


def _environment() -> dict[str, str]:
    """The child imports what this process imports, and keeps its bytecode, as an installed package has its own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
