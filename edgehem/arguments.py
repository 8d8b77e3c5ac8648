"""What every subcommand takes on the command line, and what is said of a value that it cannot take."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

BACKENDS = (
    "auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-dla", "onnxruntime-cuda", "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-rtx",
)  # fmt: skip
"""Engines that can be named."""
VARIANTS = ("planted", "null", "shifted")
"""Of a cohort of patients."""
STAGES = ("hyperacute", "acute", "early_subacute", "late_subacute", "chronic")
"""Of blood in MR."""
BENCHES = (
    "latency", "compare", "ab", "trend", "replay", "pipelines", "kernels", "intake", "engines", "gates",
    "realism", "phantoms",
)  # fmt: skip
"""What ``edgehem bench`` measures or compares; anything else is a case of the first."""
DEFAULT_BUNDLE = "hemorrhagenet"
SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
SOURCE_HELP = "a table (CSV, one row a patient), or phantoms: phantoms:, phantom-heads: or phantom-thick:COUNT:SEED"
RESULT_FILE, REPORT_FILE, PICTURE_FILE = "result.json", "report.txt", "key_slices.png"


def add_triage(parser: argparse.ArgumentParser) -> None:
    """``edgehem triage``."""
    parser.add_argument("study", metavar="STUDY", type=Path, help="a folder (searched with its subfolders) or a file")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="a shipped bundle's name, or a path (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="engine (%(default)s)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "fp16", "int8"), default="auto", help="graph (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help=f"also write {RESULT_FILE}, {REPORT_FILE} and {PICTURE_FILE} there"
    )


def add_phantom(parser: argparse.ArgumentParser) -> None:
    """``edgehem phantom``."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument(
        "--bleed",
        metavar="SUBTYPE:ML",
        type=_bleed,
        action="append",
        default=[],
        help=f"a bleed and its volume, again for more; SUBTYPE is one of {', '.join(SUBTYPES)}",
    )
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="which head (%(default)s)")
    parser.add_argument("--slices", metavar="N", type=_positive, help="number of slices")
    parser.add_argument("--thickness", metavar="MM", type=_length, help="slice thickness")
    parser.add_argument("--tilt", metavar="DEG", type=_angle, help="gantry tilt")
    parser.add_argument("--matrix", metavar="N", type=_positive, help="rows and columns of a slice")
    parser.add_argument("--cohort", metavar="N", type=_positive, help="write N drawn studies and their table.csv")
    parser.add_argument("--mr", action="store_true", help="MR of that head instead of CT: T2*, FLAIR, T1 and SWI")
    parser.add_argument("--age", choices=STAGES, help="with --mr: how old the blood is")
    parser.add_argument(
        "--field", metavar="T", type=_length, help="with --mr: field strength, 1.5 to 3 (drawn without it)"
    )
    parser.add_argument(
        "--variable-spacing", action="store_true", default=None, help="thin slices below, thick slices above"
    )
    parser.add_argument("--intercept", type=int, choices=(0, -1024), help="rescale intercept")
    parser.add_argument("--bits", type=int, choices=(12, 16), help="bits stored")
    parser.add_argument("--padding", metavar="VALUE", type=_stored, help="stored value outside the field of view")


def add_train(parser: argparse.ArgumentParser) -> None:
    """``edgehem train``."""
    parser.add_argument("system", metavar="SYSTEM")
    parser.add_argument("--data", metavar="SOURCE", required=True, help=SOURCE_HELP)
    parser.add_argument("--out", metavar="CHECKPOINT", type=Path, required=True)
    parser.add_argument("--init", metavar="CHECKPOINT", type=Path, help="refine this one by a short, gentle schedule")
    parser.add_argument("--minutes", metavar="M", type=_length, help="stop after this long")
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="(%(default)s)")


def add_export(parser: argparse.ArgumentParser) -> None:
    """``edgehem export``."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help=".pt, .pth, .ckpt, .safetensors, or .onnx")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--system", metavar="SYSTEM", help="a system of edgehem's own")
    what.add_argument(
        "--interface", metavar="FILE", type=Path, help="what a network of one's own reads and answers; docs/export.md"
    )
    parser.add_argument("--factory", metavar="MODULE:NAME", help="what makes a network of one's own")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="an argument of it")
    parser.add_argument("--here", action="store_true", help="look for its module in the current directory, too")
    parser.add_argument("--weights", metavar="WHICH", help="raw or ema, or the entry of the file that holds them")
    parser.add_argument("--prefix", metavar="TEXT", help="what stands before the network's names in the file")
    parser.add_argument("--out", metavar="BUNDLE", type=Path, required=True)
    parser.add_argument(
        "--calibration", metavar="SOURCE", help=f"studies to set operating point and calibration on: {SOURCE_HELP}"
    )
    parser.add_argument(
        "--trained-on",
        choices=("patients", "phantoms"),
        help="what the weights come from; with phantoms every output says so. Known where the training record says it",
    )
    parser.add_argument("--int8", action="store_true", help="also add INT8 graphs, as edgehem quantize does")
    parser.add_argument("--no-fp16", action="store_true", help="leave out the float16 graphs, which GPU engines run")
    parser.add_argument("--evaluate", metavar="SOURCE", help="held-out studies to judge FP32 and INT8 on")
    parser.add_argument("--sign", metavar="PRIVATE", type=Path, help="sign the bundle with this key ([sign] extra)")


def add_quantize(parser: argparse.ArgumentParser) -> None:
    """``edgehem quantize``."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="a bundle's folder, or any ONNX file")
    parser.add_argument(
        "--calibration",
        metavar="SOURCE",
        required=True,
        help=f"studies to take ranges from and to choose by: {SOURCE_HELP}; for an ONNX file a folder of .npz inputs",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="for an ONNX file: where the graphs are written")
    parser.add_argument(
        "--operators", metavar="KIND", nargs="+", default=["Conv"], help="for an ONNX file: Conv, Gemm, MatMul"
    )
    parser.add_argument("--least-db", metavar="DB", type=_length, help="for an ONNX file: least SQNR of an output (15)")
    parser.add_argument(
        "--evaluate", metavar="SOURCE", help="held-out studies to judge FP32 and INT8 on; recorded in the bundle"
    )
    parser.add_argument("--max-drop", metavar="X", type=_length, help="of the AUC that INT8 may cost (0.005)")
    parser.add_argument(
        "--no-fp16", action="store_true", help="leave out the float16 variant of the INT8 graph, which GPU engines run"
    )
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="of the split of studies (%(default)s)")


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """``edgehem evaluate``."""
    parser.add_argument("data", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="a shipped bundle's name, or a path (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write the figures into the bundle")


def add_compile(parser: argparse.ArgumentParser) -> None:
    """``edgehem compile``."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a shipped bundle's name, or a path")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="the only engine that may be chosen (%(default)s: any)"
    )
    parser.add_argument("--rounds", metavar="N", type=_positive, default=15, help="times each is run (%(default)s)")
    parser.add_argument(
        "--workspace", metavar="MIB", type=_positive, default=1024,
        help="device memory that a plan's operators may use as scratch space (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--level", type=int, choices=range(6), help="how long TensorRT looks for faster plans (its own: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print the device file instead of a table")


def add_keys(parser: argparse.ArgumentParser) -> None:
    """``edgehem keys``."""
    parser.add_argument(
        "private", metavar="PRIVATE", type=Path, help="the private key's file; the public one lies beside it"
    )


def add_sign(parser: argparse.ArgumentParser) -> None:
    """``edgehem sign``."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("--key", metavar="PRIVATE", type=Path, required=True, help="PEM, Ed25519; see docs/trust.md")
    parser.add_argument(
        "--serial", metavar="N", type=_positive, help="the bundle's number, which devices never go back from"
    )


def add_verify(parser: argparse.ArgumentParser) -> None:
    """``edgehem verify``."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a shipped bundle's name, or a path")
    parser.add_argument("--key", metavar="PUBLIC", type=Path, help="who must have signed it; else $EDGEHEM_TRUST says")
    parser.add_argument("--accept", action="store_true", help="also raise this device's mark, as loading it would")
    parser.add_argument("--allow-older", action="store_true", help="pass one that is older than the device's mark")


def add_bench_kernels(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench kernels``."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure and every time there")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="also draw the figures there (SVG)")
    parser.add_argument("--rounds", metavar="N", type=_positive, help="times each contender runs (30; with --quick 5)")
    parser.add_argument("--threads", metavar="N", type=_positive, default=2, help="for every contender (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few rounds, and only the ends of the growth")
    parser.add_argument(
        "--growth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to measure how the pass grows with slices, windows and size",
    )
    parser.add_argument("--size", metavar="SLICESxMATRIX", type=_size, help=argparse.SUPPRESS)  # for tests


def add_bench_intake(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench intake``."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure and every time there")
    parser.add_argument("--rounds", metavar="N", type=_positive, help="times each reader runs (15; with --quick 3)")
    parser.add_argument("--quick", action="store_true", help="few rounds, and only the shorter series")
    parser.add_argument("--size", metavar="SLICESxMATRIX", type=_size, help=argparse.SUPPRESS)  # for tests


def add_bench_engines(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench engines``."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    parser.add_argument("--networks", metavar="NAME", nargs="+", help="six by default; with --quick two small ones")
    parser.add_argument("--batch", metavar="N", type=_positive, help="images at once (4)")
    parser.add_argument("--rounds", metavar="N", type=_positive, help="times each candidate runs (15; with --quick 3)")
    parser.add_argument("--quick", action="store_true", help="few rounds of two small networks")


def add_bench_pipelines(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench pipelines``."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure and every time there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write a table for a README there")
    parser.add_argument("--rounds", metavar="N", type=_positive, help="times each pipeline runs (15; with --quick 3)")
    parser.add_argument("--slices", metavar="N", type=_positive, help="of every study (40)")
    parser.add_argument("--quick", action="store_true", help="few rounds")


def add_bench_latency(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench [latency]``."""
    parser.add_argument("cases", metavar="CASE", nargs="*", help="names or patterns, as stage.* or whole.warm/40 (all)")
    _measuring(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure and every time there")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write a page with pictures there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write a table for a page there")
    parser.add_argument("--history", metavar="FILE", type=Path, help="also add a line to this file, for bench trend")


def add_bench_compare(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench compare``."""
    parser.add_argument("base", metavar="BASE", type=Path, help="a result of edgehem bench, or of pytest-benchmark")
    parser.add_argument("new", metavar="NEW", type=Path)
    _judging(parser)


def add_bench_ab(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench ab``."""
    parser.add_argument("base", metavar="BASE_ENV", type=Path, help="a virtual environment, or its python")
    parser.add_argument("new", metavar="NEW_ENV", type=Path)
    parser.add_argument("cases", metavar="CASE", nargs="*", help="names or patterns (all)")
    _measuring(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, help="also write both results there: base.json, new.json")
    _judging(parser)


def add_bench_trend(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench trend``."""
    parser.add_argument("history", metavar="HISTORY", type=Path, help="written by edgehem bench --history")
    parser.add_argument("picture", metavar="SVG", type=Path)


def add_bench_replay(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench replay``."""
    parser.add_argument(
        "cases", metavar="CASE", nargs="*", help="the family that is judged together (stages, and more)"
    )
    _measuring(parser)
    parser.add_argument(
        "--slowed", metavar="CASE", default="stage.decode/40", help="the case made slower (%(default)s)"
    )
    parser.add_argument("--share", type=_length, default=0.1, help="by how much (%(default)s)")
    parser.add_argument("--record", metavar="N", type=_positive, default=240, help="rounds recorded (%(default)s)")
    parser.add_argument(
        "--recording", metavar="FILE", type=Path, help="keep the recording there; or, if it is there, replay that one"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the counts there")


def _measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", metavar="N", type=_positive, help="of every case (40; ab 60; with --quick 6)")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="a shipped bundle's name, or a path (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="engine that serves (%(default)s)")
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="of the orders and inputs (%(default)s)")


def _judging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the comparison there")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write a page with pictures there")
    parser.add_argument("--thresholds", metavar="FILE", type=Path, help="least effects and times of cases")
    parser.add_argument("--allow-different", action="store_true", help="compare other machines or engines all the same")
    parser.add_argument("--strict", action="store_true", help="exit with 5 where something could not be told")


def add_bench_gates(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench gates``."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the counts there")
    parser.add_argument("--heads", metavar="N", type=_positive, help="under every condition (100; with --quick 4)")
    parser.add_argument("--quick", action="store_true", help="few heads")


def add_bench_realism(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench realism``."""
    parser.add_argument("studies", metavar="STUDY", nargs="*", type=Path, help="real head CT to compare with")
    parser.add_argument("--phantoms", metavar="N", type=_positive, help="to measure (40; with --quick 4)")
    parser.add_argument("--quick", action="store_true", help="few phantoms")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the measurements there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write the table there")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="also write histogram and noise spectrum there (SVG)")
    parser.add_argument("--sheet", metavar="FILE", type=Path, help="also write a contact sheet there (PNG)")
    parser.add_argument("--bone", metavar="FILE", type=Path, help="the same in the bone window")
    parser.add_argument("--mr", metavar="FILE", type=Path, help="a contact sheet of MR phantoms (PNG)")


def add_bench_phantoms(parser: argparse.ArgumentParser) -> None:
    """``edgehem bench phantoms``."""
    parser.add_argument("--studies", metavar="N", type=_positive, help="made in parallel (1000; with --quick 30)")
    parser.add_argument("--workers", metavar="N", type=_positive, help="processes (one for each processor)")
    parser.add_argument("--timed", metavar="N", type=_positive, help="of each kind of CT (40; with --quick 4)")
    parser.add_argument("--quick", action="store_true", help="few studies: memory is not judged by so few")
    parser.add_argument("--slices", metavar="N", type=_positive, help="of a CT (40)")
    parser.add_argument("--seed", metavar="N", type=_natural, help="of the studies' cohort (92)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every time and every reading there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write the tables there")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="also draw memory by study there (SVG)")
    parser.add_argument("--matrix", metavar="N", type=_positive, help=argparse.SUPPRESS)  # for tests
    parser.add_argument("--voxel", metavar="MM", type=_length, help=argparse.SUPPRESS)  # for tests


def add_cohort(parser: argparse.ArgumentParser) -> None:
    """``edgehem cohort``."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", default="list", help="which; list, or nothing, names them all"
    )
    parser.add_argument("out", metavar="OUT", nargs="?", type=Path, help="folder to write; must not exist, or be empty")
    parser.add_argument(
        "--patients", metavar="N", type=_positive, help="the cohort's own training and test set by default"
    )
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="(%(default)s)")
    parser.add_argument("--variant", choices=VARIANTS, default="planted", help="(%(default)s)")
    parser.add_argument(
        "--files", action=argparse.BooleanOptionalAction, default=False, help="images, waveforms and texts, too: slow"
    )
    parser.add_argument("--cases", action="store_true", help="a case.json for each patient, too")
    parser.add_argument("--workers", metavar="N", type=_positive, help="processes (one for each processor)")


def add_exam(parser: argparse.ArgumentParser) -> None:
    """``edgehem exam``."""
    parser.add_argument("cohorts", metavar="COHORT", nargs="*", help="all by default")
    parser.add_argument("--quick", action="store_true", help="smaller draws, fewer repetitions")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write a table for a page there")
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="(%(default)s)")
    parser.add_argument("--workers", metavar="N", type=_positive, help="processes (one for each processor)")


def _bleed(text: str) -> tuple[str, float]:
    subtype, _, volume = text.partition(":")
    if subtype not in SUBTYPES:
        raise argparse.ArgumentTypeError(f"{subtype!r} is not a subtype; choose from {', '.join(SUBTYPES)}")
    try:
        millilitres = float(volume)
    except ValueError:
        millilitres = math.nan
    if not (math.isfinite(millilitres) and millilitres > 0):
        raise argparse.ArgumentTypeError(f"{text!r} needs a volume above 0 mL, as in {subtype}:20")
    return subtype, millilitres


def _number(text: str, *, kind: type[int] | type[float], low: float, high: float, wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _positive(text: str) -> int:
    value: int = _number(text, kind=int, low=1, high=math.inf, wanted="a whole number above 0")
    return value


def _natural(text: str) -> int:
    value: int = _number(text, kind=int, low=0, high=math.inf, wanted="a whole number, 0 or more")
    return value


def _length(text: str) -> float:
    value: float = _number(text, kind=float, low=sys.float_info.min, high=sys.float_info.max, wanted="above 0")
    return value


def _angle(text: str) -> float:
    value: float = _number(text, kind=float, low=-45, high=45, wanted="an angle between -45 and 45 degrees")
    return value


def _stored(text: str) -> int:
    value: int = _number(text, kind=int, low=-(2**15), high=2**15 - 1, wanted="a signed 16-bit value")
    return value


def _size(text: str) -> tuple[int, int]:
    slices, _, matrix = text.partition("x")
    return _positive(slices), _positive(matrix)
