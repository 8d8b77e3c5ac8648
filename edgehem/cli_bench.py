"""``edgehem bench``: a thin front, as :mod:`edgehem.cli` is. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgehem import arguments as takes
from edgehem.console import ask_for_file, leave, progress, say, whole
from edgehem.errors import MissingExtraError, Refusal, UsageError

HELP = "Measure speed on this machine."


def add(commands: Any) -> None:
    """Add ``bench`` with its subcommands to the command line's; each sets ``run``."""
    measured = commands.add_parser("bench", help=HELP, description=HELP).add_subparsers(
        title="what to measure", metavar="WHAT", required=True
    )
    for takes_arguments, run, summary in (
        (takes.add_bench_latency, latency, "Stages, engines and whole studies; what bench alone means."),
        (takes.add_bench_compare, compare, "Two results: what got slower; exit code 4 if anything did."),
        (takes.add_bench_ab, ab, "Two installs that take turns, and what differs."),
        (takes.add_bench_trend, trend, "A picture of a history of results."),
        (takes.add_bench_replay, replay, "Whether compare finds a slow-down, and calls none where there is none."),
        (takes.add_bench_kernels, kernels, "The preprocessing pass beside a memcpy and other libraries."),
        (takes.add_bench_intake, intake, "Files to a stack beside other readers."),
        (takes.add_bench_engines, engines, "Every engine and precision of six networks ([export], [cpu])."),
        (takes.add_bench_pipelines, pipelines, "A folder to logits beside other pipelines ([export], [cpu])."),
        (takes.add_bench_gates, gates, "How often the intake's gates are right on phantoms: counts, not times."),
        (takes.add_bench_realism, realism, "How like real head CT phantoms are: the same measurements on both."),
        (takes.add_bench_phantoms, phantoms, "Time of a phantom study on one core, and memory over many of them."),
    ):
        sub = measured.add_parser(run.__name__, help=summary, description=summary)
        sub.set_defaults(run=run)
        takes_arguments(sub)


def spelled_out(argv: Sequence[str]) -> list[str]:
    """``edgehem bench [CASE...]`` is ``edgehem bench latency [CASE...]``."""
    words = list(argv)
    if words[:1] == ["bench"] and words[1:2] not in [[name] for name in (*takes.BENCHES, "-h", "--help")]:
        words.insert(1, "latency")
    return words


def kernels(arguments: argparse.Namespace) -> int:
    """``edgehem bench kernels``: the preprocessing pass beside a memcpy and beside its peers."""
    ask_for_file("--json", arguments.json)
    ask_for_file("--plot", arguments.plot)
    from edgehem.benchmarks import commands

    result = commands.kernels(
        rounds=arguments.rounds,
        threads=arguments.threads,
        quick=arguments.quick,
        growth=arguments.growth,
        size=arguments.size,
        progress=progress,
    )
    return _tell(result, (arguments.json, commands.document), (arguments.plot, commands.drawing))


def intake(arguments: argparse.Namespace) -> int:
    """``edgehem bench intake``: reading a study beside other readers."""
    ask_for_file("--json", arguments.json)
    from edgehem.benchmarks import commands

    result = commands.intake(rounds=arguments.rounds, quick=arguments.quick, size=arguments.size, progress=progress)
    return _tell(result, (arguments.json, commands.document))


def gates(arguments: argparse.Namespace) -> int:
    """``edgehem bench gates``: how often the intake's gates are right on phantoms."""
    ask_for_file("--json", arguments.json)
    from edgehem.benchmarks import commands

    result = commands.gates(heads=arguments.heads, quick=arguments.quick, progress=progress)
    return _tell(result, (arguments.json, commands.document))


def realism(arguments: argparse.Namespace) -> int:
    """``edgehem bench realism``: phantoms beside real head CT."""
    for option in ("json", "markdown", "plot", "sheet", "bone", "mr"):
        ask_for_file(f"--{option}", getattr(arguments, option))
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("edgehem bench realism", "bench")
    from edgehem.benchmarks.realism import report, run, sheet
    from edgehem.dicom.read import read_study

    try:
        real = [(f"real {number}", read_study(path).volume) for number, path in enumerate(arguments.studies, start=1)]
    except Refusal as refusal:
        raise UsageError(f"a study cannot be compared: {refusal.reason}") from refusal
    for path, window in ((arguments.sheet, sheet.BRAIN), (arguments.bone, sheet.BONE)):
        if path is not None:
            with whole(path) as part:
                sheet.draw([*real, *run.to_look_at()], window=window).save(part, format="PNG")
    if arguments.mr is not None:
        with whole(arguments.mr) as part:
            sheet.draw_mr(run.mr_to_look_at()).save(part, format="PNG")
    result = run.run(
        [volume for _, volume in real],
        phantoms=arguments.phantoms or (run.QUICK_PHANTOMS if arguments.quick else run.PHANTOMS),
        progress=progress,
    )
    print(report.render(result), end="", flush=True)
    leave(
        (arguments.json, lambda: json.dumps(result, allow_nan=False) + "\n"),
        (arguments.markdown, lambda: report.markdown(result)),
        (arguments.plot, lambda: report.drawing(result)),
    )
    return 0


def phantoms(arguments: argparse.Namespace) -> int:
    """``edgehem bench phantoms``: how long phantoms take, and whether memory grows."""
    for option in ("json", "markdown", "plot"):
        ask_for_file(f"--{option}", getattr(arguments, option))
    from edgehem.benchmarks import phantoms as made
    from edgehem.benchmarks import phantoms_report as report

    asked = made.settings(
        studies=arguments.studies,
        workers=arguments.workers,
        timed=arguments.timed,
        quick=arguments.quick,
        slices=arguments.slices,
        seed=arguments.seed,
        matrix=arguments.matrix,
        voxel_mm=arguments.voxel,
    )
    result = made.run(asked, progress=progress)
    print(report.render(result), end="", flush=True)
    leave(
        (arguments.json, lambda: json.dumps(result, allow_nan=False) + "\n"),
        (arguments.markdown, lambda: report.markdown(result)),
        (arguments.plot, lambda: report.drawing(result)),
    )
    return 0


def engines(arguments: argparse.Namespace) -> int:
    """``edgehem bench engines``: every engine and precision of the same networks."""
    ask_for_file("--json", arguments.json)
    from edgehem.benchmarks import commands

    result = commands.engines(
        networks=arguments.networks,
        batch=arguments.batch,
        rounds=arguments.rounds,
        quick=arguments.quick,
        say=say,
    )
    return _tell(result, (arguments.json, commands.document))


def pipelines(arguments: argparse.Namespace) -> int:
    """``edgehem bench pipelines``: a folder to logits, beside what others would write around the same network."""
    ask_for_file("--json", arguments.json)
    ask_for_file("--markdown", arguments.markdown)
    from edgehem.benchmarks import commands

    result = commands.pipelines(rounds=arguments.rounds, slices=arguments.slices, quick=arguments.quick, say=say)
    return _tell(result, (arguments.json, commands.document), (arguments.markdown, commands.markdown))


def latency(arguments: argparse.Namespace) -> int:
    """``edgehem bench``: where the time of a study goes, stage by stage and as a whole."""
    ask_for_file("--json", arguments.json)
    ask_for_file("--markdown", arguments.markdown)
    ask_for_file("--html", arguments.html)
    ask_for_file("--history", arguments.history)
    from edgehem.benchmarks.latency import compare_commands, page, run

    result = run.measure(_measuring(arguments, run.ROUNDS), say=say)
    print(run.render(result), flush=True)
    leave(
        (arguments.json, lambda: json.dumps(result) + "\n"),
        (arguments.html, lambda: page.result(result)),
        (arguments.markdown, lambda: run.markdown(result)),
    )
    if arguments.history is not None:
        compare_commands.remember(result, arguments.history)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """``edgehem bench compare``: two results, case by case."""
    from edgehem.benchmarks.latency import compare_commands

    return compare_commands.compare_files(arguments.base, arguments.new, **_judging(arguments))


def ab(arguments: argparse.Namespace) -> int:
    """``edgehem bench ab``: two installs that take turns."""
    rules = _judging(arguments)
    if arguments.out is not None and not arguments.out.is_dir():
        raise UsageError("--out needs a folder that exists")
    from edgehem.benchmarks.latency import compare_commands, run

    arms = [run.Arm.of("base", arguments.base), run.Arm.of("new", arguments.new)]
    base, new = run.measure_arms(arms, _measuring(arguments, run.AB_ROUNDS), say=say)
    if arguments.out is not None:
        leave(
            (arguments.out / "base.json", lambda: json.dumps(base) + "\n"),
            (arguments.out / "new.json", lambda: json.dumps(new) + "\n"),
        )
    return compare_commands.compare(base, new, **rules)


def trend(arguments: argparse.Namespace) -> int:
    """``edgehem bench trend``: a picture of what was measured over time."""
    from edgehem.benchmarks.latency import compare_commands

    count = compare_commands.trend_file(arguments.history, arguments.picture)
    print(f"{count} results drawn: {arguments.picture}")
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """``edgehem bench replay``: how often a comparison is right, on this machine, where the answer is known."""
    ask_for_file("--json", arguments.json)
    from dataclasses import replace

    from edgehem.benchmarks.latency import replay as replays
    from edgehem.benchmarks.latency import run

    settings, kept = _measuring(arguments, run.AB_ROUNDS), arguments.recording
    if kept is not None and kept.exists():
        recording = replays.read_recording(kept)
    else:
        ask_for_file("--recording", kept)
        lasting = replace(settings, rounds=arguments.record)
        recording = replays.record(lasting, slowed=arguments.slowed, share=arguments.share, say=say)
        leave((kept, lambda: json.dumps(recording) + "\n"))
    say("replaying")
    result = replays.counted(recording, rounds=settings.rounds, seed=settings.seed)
    print(replays.render(result), flush=True)
    leave((arguments.json, lambda: json.dumps(result) + "\n"))
    return 0


def _measuring(arguments: argparse.Namespace, usual: int) -> Any:
    from edgehem.benchmarks.latency import run

    rounds = arguments.rounds or (run.QUICK_ROUNDS if arguments.quick else usual)
    return run.Settings(
        cases=arguments.cases, rounds=rounds, seed=arguments.seed, bundle=arguments.bundle, backend=arguments.backend
    )


def _judging(arguments: argparse.Namespace) -> dict[str, Any]:
    """How two results are compared, and where that is told."""
    ask_for_file("--json", arguments.json)
    ask_for_file("--html", arguments.html)
    return {
        "allow_different": arguments.allow_different,
        "strict": arguments.strict,
        "json_file": arguments.json,
        "html": arguments.html,
        "limits": arguments.thresholds,
        "tell": lambda text: print(text.rstrip("\n"), flush=True),
    }


def _tell(result: dict[str, Any], *files: tuple[Path | None, Callable[[dict[str, Any]], str]]) -> int:
    """Print what was measured, and write it where that was asked for."""
    from edgehem.benchmarks import commands

    print(commands.text(result).rstrip("\n"), flush=True)
    leave(*((path, partial(content, result)) for path, content in files))
    return 0
