"""The command line: a thin front. Each subcommand imports what it needs when it runs.

Exit codes: 0 analysed (ACCEPT or FLAG) or done; 3 NO-RESULT; 2 wrong arguments; 1 internal error; 130 interrupted, 143
told to stop.
Results go to stdout; progress, hints and errors go to stderr.
"""

from __future__ import annotations

import argparse
import errno
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgehem.errors import BundleError, EdgehemError, MissingExtraError, Refusal, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgehem.dicom.study import Study
    from edgehem.result import Result

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_NO_RESULT = 3
EXIT_INTERRUPTED = 130
EXIT_TOLD_TO_STOP = 128 + signal.SIGTERM

BACKENDS = ("auto", "onnxruntime", "openvino")
DEFAULT_BUNDLE = "hemorrhagenet"
SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
BENCH_HELP = "Measure speed on this machine."
SOURCE_HELP = "a table (CSV, one row a patient), or phantoms: phantoms:, phantom-heads: or phantom-thick:COUNT:SEED"
DEBUG_VARIABLE = "EDGEHEM_DEBUG"

RESULT_FILE, REPORT_FILE, PICTURE_FILE = "result.json", "report.txt", "key_slices.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; by default the process' own.

    Returns
    -------
    int
        The exit code. Wrong options end in ``SystemExit(2)``, as argparse has it.
    """
    _use_utf8()
    arguments = build_parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        # Told to stop, a process tidies up as it does when it ends: what a zip was unpacked to must not stay behind.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_TOLD_TO_STOP))
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has left: nothing is wrong here, and Python must not complain while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERNAL
    except Exception as error:
        return _explain(error)
    return code


def triage(arguments: argparse.Namespace) -> int:
    """``edgehem triage``: one study, one verdict."""
    import edgehem
    from edgehem.report.text import render_text
    from edgehem.result import Verdict

    path: Path = arguments.study
    if not path.exists():
        raise UsageError("STUDY does not exist; a folder or a file is expected")
    model = edgehem.load(arguments.bundle, backend=arguments.backend, precision=arguments.precision)
    if arguments.out is not None:
        _prepare(arguments.out)
    result, study = model.triage_path(path)
    # Said before it is written: a full disk must not swallow a verdict.
    print(result.to_json() if arguments.json else render_text(result).rstrip("\n"), flush=True)
    if arguments.out is not None:
        _write(arguments.out, result, study)
    return EXIT_NO_RESULT if result.verdict is Verdict.NO_RESULT else EXIT_DONE


def phantom(arguments: argparse.Namespace) -> int:
    """``edgehem phantom``: synthetic studies with a known truth."""
    if arguments.cohort is not None and arguments.bleed:
        raise UsageError("--bleed and --cohort exclude each other: a cohort draws its own bleeds")
    from edgehem.machine import usable_cpus
    from edgehem.phantom import Bleed, Protocol, write_cohort, write_study

    asked = {
        "slices": arguments.slices,
        "thickness_mm": arguments.thickness,
        "tilt_deg": arguments.tilt,
        "variable_spacing": arguments.variable_spacing,
        "intercept": arguments.intercept,
        "bits": arguments.bits,
        "padding": arguments.padding,
        "matrix": arguments.matrix,
    }
    try:
        # What was not asked for is left to the phantom's own defaults, which then stand in one place only.
        protocol = Protocol(**{name: value for name, value in asked.items() if value is not None})
        bleeds = tuple(Bleed(subtype=subtype, ml=volume) for subtype, volume in arguments.bleed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.cohort is not None:
        workers = usable_cpus()
        print(write_cohort(
            arguments.out, arguments.cohort, seed=arguments.seed, protocol=protocol, workers=workers, progress=_progress
        ))  # fmt: skip
        return EXIT_DONE
    write_study(arguments.out, bleeds=bleeds, seed=arguments.seed, protocol=protocol)
    print(arguments.out / "dicom")
    return EXIT_DONE


def train(arguments: argparse.Namespace) -> int:
    """``edgehem train``: a checkpoint from a table of cases."""
    with _export_extra("training"):
        from edgehem.export import commands

        commands.train(
            arguments.system,
            data=arguments.data,
            out=arguments.out,
            minutes=arguments.minutes,
            seed=arguments.seed,
            initial=arguments.init,
        )
    return EXIT_DONE


def export(arguments: argparse.Namespace) -> int:
    """``edgehem export``: a bundle from a checkpoint."""
    with _export_extra("export"):
        from edgehem.export import commands

        commands.export(
            arguments.checkpoint,
            out=arguments.out,
            system=arguments.system,
            interface=arguments.interface,
            target=arguments.factory,
            arguments=arguments.set,
            look_here=arguments.here,
            weights=arguments.weights,
            prefix=arguments.prefix,
            calibration=arguments.calibration,
            trained_on=arguments.trained_on,
            int8=arguments.int8,
            held_out=arguments.evaluate,
            key=arguments.sign,
        )
    return EXIT_DONE


def quantize(arguments: argparse.Namespace) -> int:
    """``edgehem quantize``: INT8 graphs for a bundle."""
    with _export_extra("quantization"):
        from edgehem.export import commands

        if arguments.bundle.suffix == ".onnx":
            if arguments.out is None or arguments.evaluate:
                raise UsageError("an ONNX file needs --out DIR, and is judged by numbers alone (no --evaluate)")
            commands.quantize_onnx(
                arguments.bundle,
                data=Path(arguments.calibration),
                out=arguments.out,
                kinds=arguments.operators,
                least_db=arguments.least_db,
                seed=arguments.seed,
            )
            return EXIT_DONE
        commands.quantize(
            arguments.bundle,
            calibration=arguments.calibration,
            held_out=arguments.evaluate,
            max_drop=arguments.max_drop,
            seed=arguments.seed,
        )
    return EXIT_DONE


def evaluate(arguments: argparse.Namespace) -> int:
    """``edgehem evaluate``: a bundle judged on labelled studies, through the whole runtime."""
    with _export_extra("evaluation"):
        from edgehem.export import commands

        print(commands.evaluate(arguments.bundle, arguments.data, record=arguments.record))
    return EXIT_DONE


def keys(arguments: argparse.Namespace) -> int:
    """``edgehem keys``: a key pair to sign bundles with."""
    from edgehem.keys import make_keys

    print(make_keys(arguments.private))
    return EXIT_DONE


def sign(arguments: argparse.Namespace) -> int:
    """``edgehem sign``: a bundle vouched for by a private key."""
    from edgehem.signing import sign_bundle

    print(sign_bundle(arguments.bundle, arguments.key, serial=arguments.serial))
    return EXIT_DONE


def verify(arguments: argparse.Namespace) -> int:
    """``edgehem verify``: every file of a bundle, and who signed it."""
    from edgehem.signing import verify_bundle

    checked = verify_bundle(arguments.bundle, arguments.key, allow_older=arguments.allow_older, accept=arguments.accept)
    print(checked.text().rstrip("\n"))
    return EXIT_DONE


def compile(arguments: argparse.Namespace) -> int:
    """``edgehem compile``: the fastest engine and graph of a bundle that stay true on this machine."""
    from edgehem.bundle import find
    from edgehem.export.compile import compile_bundle, document, table

    record = compile_bundle(find(arguments.bundle), backend=arguments.backend, rounds=arguments.rounds, say=_say)
    print((document(record) if arguments.json else table(record)).rstrip("\n"), flush=True)
    return EXIT_DONE


def bench_kernels(arguments: argparse.Namespace) -> int:
    """``edgehem bench kernels``: the preprocessing pass beside a memcpy and beside its peers."""
    _ask_for_file("--json", arguments.json)
    _ask_for_file("--plot", arguments.plot)
    from edgehem.benchmarks import commands

    result = commands.kernels(
        rounds=arguments.rounds,
        threads=arguments.threads,
        quick=arguments.quick,
        growth=arguments.growth,
        size=arguments.size,
        progress=_progress,
    )
    print(commands.text(result).rstrip("\n"), flush=True)
    for path, content in ((arguments.json, commands.document), (arguments.plot, commands.drawing)):
        if path is not None:
            with _whole(path) as part:
                part.write_text(content(result), encoding="utf-8")
    return EXIT_DONE


def bench_intake(arguments: argparse.Namespace) -> int:
    """``edgehem bench intake``: reading a study beside other readers."""
    _ask_for_file("--json", arguments.json)
    from edgehem.benchmarks import commands

    result = commands.intake(rounds=arguments.rounds, quick=arguments.quick, size=arguments.size, progress=_progress)
    print(commands.text(result).rstrip("\n"), flush=True)
    if arguments.json is not None:
        with _whole(arguments.json) as part:
            part.write_text(commands.document(result), encoding="utf-8")
    return EXIT_DONE


def bench_gates(arguments: argparse.Namespace) -> int:
    """``edgehem bench gates``: how often the intake's gates are right on phantoms."""
    _ask_for_file("--json", arguments.json)
    from edgehem.benchmarks import commands

    result = commands.gates(heads=arguments.heads, quick=arguments.quick, progress=_progress)
    print(commands.text(result).rstrip("\n"), flush=True)
    if arguments.json is not None:
        with _whole(arguments.json) as part:
            part.write_text(commands.document(result), encoding="utf-8")
    return EXIT_DONE


def _ask_for_file(option: str, path: Path | None) -> None:
    """Ask whether a result can be written before the minutes that it takes, not after them."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UsageError(f"{option} needs a file in a folder that exists")


def doctor(arguments: argparse.Namespace) -> int:
    """``edgehem doctor``: what this machine can run, and why not the rest."""
    import json

    from edgehem.doctor import examine, render_examination

    examination = examine()
    print(json.dumps(examination) if arguments.json else render_examination(examination).rstrip("\n"))
    return EXIT_DONE


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; every subcommand sets ``run``."""
    parser = argparse.ArgumentParser(
        prog="edgehem",
        description="Hemorrhage triage from a DICOM head CT.",
        epilog="Exit codes: 0 analysed or done, 3 NO-RESULT, 2 wrong arguments, 1 internal error.",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    _add_triage(command(triage, "Analyse one study: ACCEPT, FLAG or NO-RESULT."))
    _add_phantom(command(phantom, "Write synthetic DICOM studies with a known truth."))
    _add_train(command(train, "Train a system's network from a table of cases ([export] extra)."))
    _add_export(command(export, "Turn a checkpoint into a bundle of ONNX graphs ([export] extra)."))
    _add_quantize(command(quantize, "Add INT8 graphs to a bundle ([export] extra)."))
    _add_evaluate(command(evaluate, "Judge a bundle on labelled studies ([export] extra)."))
    _add_trust(command)
    _add_compile(command(compile, "Measure every engine and precision here; keep the fastest that stays true."))
    _add_bench(commands.add_parser("bench", help=BENCH_HELP, description=BENCH_HELP))
    sub = command(doctor, "Say what this machine can run, and why not the rest.")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def _add_triage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", type=Path, help="a folder (searched with its subfolders) or a file")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="a shipped bundle's name, or a path (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="engine (%(default)s)")
    parser.add_argument("--precision", choices=("auto", "fp32", "int8"), default="auto", help="graph (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help=f"also write {RESULT_FILE}, {REPORT_FILE} and {PICTURE_FILE} there"
    )


def _add_phantom(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--variable-spacing", action="store_true", default=None, help="thin slices below, thick slices above"
    )
    parser.add_argument("--intercept", type=int, choices=(0, -1024), help="rescale intercept")
    parser.add_argument("--bits", type=int, choices=(12, 16), help="bits stored")
    parser.add_argument("--padding", metavar="VALUE", type=_stored, help="stored value outside the field of view")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("system", metavar="SYSTEM")
    parser.add_argument("--data", metavar="SOURCE", required=True, help=SOURCE_HELP)
    parser.add_argument("--out", metavar="CHECKPOINT", type=Path, required=True)
    parser.add_argument("--init", metavar="CHECKPOINT", type=Path, help="refine this one by a short, gentle schedule")
    parser.add_argument("--minutes", metavar="M", type=_length, help="stop after this long")
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="(%(default)s)")


def _add_export(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--evaluate", metavar="SOURCE", help="held-out studies to judge FP32 and INT8 on")
    parser.add_argument("--sign", metavar="PRIVATE", type=Path, help="sign the bundle with this key ([sign] extra)")


def _add_quantize(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="of the split of studies (%(default)s)")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="a shipped bundle's name, or a path (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write the figures into the bundle")


def _add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a shipped bundle's name, or a path")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="the only engine that may be chosen (%(default)s: any)"
    )
    parser.add_argument("--rounds", metavar="N", type=_positive, default=15, help="times each is run (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the device file instead of a table")


def _add_trust(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(keys, "Make a key pair to sign bundles with ([sign] extra).")
    sub.add_argument(
        "private", metavar="PRIVATE", type=Path, help="the private key's file; the public one lies beside it"
    )
    sub = command(sign, "Sign a bundle ([sign] extra).")
    sub.add_argument("bundle", metavar="BUNDLE", type=Path)
    sub.add_argument("--key", metavar="PRIVATE", type=Path, required=True, help="PEM, Ed25519; see docs/trust.md")
    sub.add_argument(
        "--serial", metavar="N", type=_positive, help="the bundle's number, which devices never go back from"
    )
    sub = command(verify, "Check every file of a bundle, and its signature ([sign] extra where there is one).")
    sub.add_argument("bundle", metavar="BUNDLE", help="a shipped bundle's name, or a path")
    sub.add_argument("--key", metavar="PUBLIC", type=Path, help="who must have signed it; else $EDGEHEM_TRUST says")
    sub.add_argument("--accept", action="store_true", help="also raise this device's mark, as loading it would")
    sub.add_argument("--allow-older", action="store_true", help="pass one that is older than the device's mark")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    cases = parser.add_subparsers(title="what to measure", metavar="WHAT", required=True)
    summary = "The preprocessing pass beside a memcpy and other libraries (what is not installed is passed over)."
    sub = cases.add_parser("kernels", help=summary, description=summary)
    sub.set_defaults(run=bench_kernels)
    sub.add_argument("--json", metavar="FILE", type=Path, help="also write every figure and every time there")
    sub.add_argument("--plot", metavar="FILE", type=Path, help="also draw the figures there (SVG)")
    sub.add_argument("--rounds", metavar="N", type=_positive, help="times each contender runs (30; with --quick 5)")
    sub.add_argument("--threads", metavar="N", type=_positive, default=2, help="for every contender (%(default)s)")
    sub.add_argument("--quick", action="store_true", help="few rounds, and only the ends of the growth")
    sub.add_argument(
        "--growth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to measure how the pass grows with slices, windows and size",
    )
    sub.add_argument("--size", metavar="SLICESxMATRIX", type=_size, help=argparse.SUPPRESS)  # for tests

    summary = "Files to a stack beside other readers (what is not installed is passed over)."
    sub = cases.add_parser("intake", help=summary, description=summary)
    sub.set_defaults(run=bench_intake)
    sub.add_argument("--json", metavar="FILE", type=Path, help="also write every figure and every time there")
    sub.add_argument("--rounds", metavar="N", type=_positive, help="times each reader runs (15; with --quick 3)")
    sub.add_argument("--quick", action="store_true", help="few rounds, and only the shorter series")
    sub.add_argument("--size", metavar="SLICESxMATRIX", type=_size, help=argparse.SUPPRESS)  # for tests

    summary = "How often the intake's gates are right on phantoms, sound and spoilt: counts, not times."
    sub = cases.add_parser("gates", help=summary, description=summary)
    sub.set_defaults(run=bench_gates)
    sub.add_argument("--json", metavar="FILE", type=Path, help="also write the counts there")
    sub.add_argument("--heads", metavar="N", type=_positive, help="under every condition (100; with --quick 4)")
    sub.add_argument("--quick", action="store_true", help="few heads")


class _Version(argparse.Action):
    """``--version``, with the version looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import edgehem

        print(f"edgehem {edgehem.__version__}")
        parser.exit()


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


def _prepare(out: Path) -> None:
    """Make the output folder, and empty it of an earlier run's files: it never mixes two studies."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (RESULT_FILE, REPORT_FILE, PICTURE_FILE):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"--out cannot be written to: {error.strerror}") from error


def _write(out: Path, result: Result, study: Study | None) -> None:
    """Write the files of one result; the JSON comes last, so that where it is, the rest is complete."""
    from edgehem.report.pictures import save_key_slices
    from edgehem.report.text import render_text

    if study is not None and result.key_slices:
        try:
            with _whole(out / PICTURE_FILE) as part:
                save_key_slices(study, result, part)
        except MissingExtraError as error:
            _say(f"no {PICTURE_FILE}: {error}")
    with _whole(out / REPORT_FILE) as part:
        part.write_text(render_text(result), encoding="utf-8")
    with _whole(out / RESULT_FILE) as part:
        part.write_text(result.to_json() + "\n", encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes ``path`` in one step, or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _export_extra(what: str) -> Iterator[None]:
    """Say which extra is missing where a package of the export side is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "edgehem").partition(".")[0] == "edgehem":
            raise
        raise MissingExtraError(what, "export") from error


def _explain(error: Exception) -> int:
    """One line on stderr and the exit code for it.

    The messages of edgehem's own errors hold no patient data. Any other message may (a path, a header value), so
    only the type is named; the traceback is shown on request.
    """
    if os.environ.get(DEBUG_VARIABLE) == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Refusal):
        return _fail(f"{error.code.value}: {error.reason}", EXIT_NO_RESULT)
    if isinstance(error, (UsageError, MissingExtraError, BundleError)):
        return _fail(str(error), EXIT_USAGE)
    if isinstance(error, EdgehemError):
        return _fail(str(error), EXIT_INTERNAL)
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        kind += f" ({errno.errorcode.get(error.errno, 'unknown errno')})"
    return _fail(f"internal error: {kind}; run again with {DEBUG_VARIABLE}=1 for the traceback", EXIT_INTERNAL)


def _fail(message: str, code: int) -> int:
    _say(message)
    return code


def _say(message: str) -> None:
    print(f"edgehem: {message}", file=sys.stderr)


def _progress(done: int, count: int) -> None:
    """A counter that stays on its line, for people only: a log needs no line for every study."""
    if sys.stderr.isatty():
        print(f"\r{done} of {count}", end="\n" if done == count else "", file=sys.stderr, flush=True)


def _use_utf8() -> None:
    """JSON is UTF-8 by its standard, and a report must not fail on a terminal that lacks one of its signs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
