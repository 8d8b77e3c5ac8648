"""The command line: a thin front. Each subcommand imports what it needs when it runs.

Exit codes: 0 analysed (ACCEPT or FLAG) or done; 3 NO-RESULT; 2 wrong arguments; 1 internal error; 130 interrupted, 143
told to stop.
Results go to stdout; progress, hints and errors go to stderr.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgehem import arguments as takes
from edgehem import cli_bench as bench
from edgehem import cli_cohorts
from edgehem.arguments import PICTURE_FILE, REPORT_FILE, RESULT_FILE
from edgehem.console import progress, say, whole
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

DEBUG_VARIABLE = "EDGEHEM_DEBUG"


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
    arguments = build_parser().parse_args(bench.spelled_out(sys.argv[1:] if argv is None else argv))
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
    if arguments.mr:
        return _mr_phantom(arguments)
    if arguments.age or arguments.field:
        raise UsageError("--age and --field are of MR: they need --mr")
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
            arguments.out, arguments.cohort, seed=arguments.seed, protocol=protocol,
            workers=workers, progress=progress,
        ))  # fmt: skip
        return EXIT_DONE
    write_study(arguments.out, bleeds=bleeds, seed=arguments.seed, protocol=protocol)
    print(arguments.out / "dicom")
    return EXIT_DONE


def _mr_phantom(arguments: argparse.Namespace) -> int:
    """MR of the head, and the hemorrhages, that the same seed gives in CT."""
    of_ct = ("slices", "thickness", "tilt", "cohort", "variable_spacing", "intercept", "bits", "padding")
    if asked := [name for name in of_ct if getattr(arguments, name) is not None]:
        raise UsageError(f"--{asked[0].replace('_', '-')} is of CT: it cannot stand beside --mr")
    if arguments.age and not arguments.bleed:
        raise UsageError("--age is of blood: it needs --bleed")
    from edgehem.phantom import Bleed, write_mr_study

    try:
        bleeds = tuple(Bleed(subtype=subtype, ml=volume) for subtype, volume in arguments.bleed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    write_mr_study(
        arguments.out, seed=arguments.seed, bleeds=bleeds, age=arguments.age, field_t=arguments.field,
        **({"matrix": arguments.matrix} if arguments.matrix else {}),
    )  # fmt: skip
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
            half=not arguments.no_fp16,
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
            half=not arguments.no_fp16,
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
    from edgehem.backends import Build
    from edgehem.bundle import find
    from edgehem.export.compile import compile_bundle, document, table

    build = Build(workspace_mib=arguments.workspace, level=arguments.level)
    record = compile_bundle(
        find(arguments.bundle), backend=arguments.backend, rounds=arguments.rounds, build=build, say=say
    )
    print((document(record) if arguments.json else table(record)).rstrip("\n"), flush=True)
    return EXIT_DONE


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

    takes.add_triage(command(triage, "Analyse one study: ACCEPT, FLAG or NO-RESULT."))
    takes.add_phantom(command(phantom, "Write synthetic DICOM studies with a known truth."))
    takes.add_train(command(train, "Train a system's network from a table of cases ([export] extra)."))
    takes.add_export(command(export, "Turn a checkpoint or an ONNX into a bundle ([export] extra)."))
    takes.add_quantize(command(quantize, "Add INT8 graphs to a bundle ([export] extra)."))
    takes.add_evaluate(command(evaluate, "Judge a bundle on labelled studies ([export] extra)."))
    takes.add_keys(command(keys, "Make a key pair to sign bundles with ([sign] extra)."))
    takes.add_sign(command(sign, "Sign a bundle ([sign] extra)."))
    takes.add_verify(command(verify, "Check every file of a bundle, and its signature, if it has one ([sign] extra)."))
    takes.add_compile(command(compile, "Measure every engine and precision here; keep the fastest that stays true."))
    bench.add(commands)
    cli_cohorts.add(commands)
    sub = command(doctor, "Say what this machine can run, and why not the rest.")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


class _Version(argparse.Action):
    """``--version``, with the version looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import edgehem

        print(f"edgehem {edgehem.__version__}")
        parser.exit()


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
            with whole(out / PICTURE_FILE) as part:
                save_key_slices(study, result, part)
        except MissingExtraError as error:
            say(f"no {PICTURE_FILE}: {error}")
    with whole(out / REPORT_FILE) as part:
        part.write_text(render_text(result), encoding="utf-8")
    with whole(out / RESULT_FILE) as part:
        part.write_text(result.to_json() + "\n", encoding="utf-8")


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
    say(message)
    return code


def _use_utf8() -> None:
    """JSON is UTF-8 by its standard, and a report must not fail on a terminal that lacks one of its signs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
