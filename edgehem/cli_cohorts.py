"""``edgehem cohort`` and ``edgehem exam``: a thin front, as :mod:`edgehem.cli` is."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from edgehem import arguments as takes
from edgehem.console import ask_for_file, leave, progress, say
from edgehem.errors import UsageError

EXIT_DONE, EXIT_FAILED = 0, 4
"""4, as where ``edgehem bench compare`` found something slower: the work was done, and its answer is bad."""


def add(commands: Any) -> None:
    """Add both to the command line's; each sets ``run``."""
    summary = "Write a cohort of synthetic patients as a training table."
    sub = commands.add_parser("cohort", help=summary, description=summary)
    sub.set_defaults(run=cohort)
    takes.add_cohort(sub)

    summary = "Ceilings of cohorts, and scores of simple models on them, on null and on shifted ones ([export] extra)."
    sub = commands.add_parser("exam", help=summary, description=summary, epilog="Exit code 4: a row failed.")
    sub.set_defaults(run=exam)
    takes.add_exam(sub)


def cohort(arguments: argparse.Namespace) -> int:
    """``edgehem cohort``: patients as a table."""
    from edgehem.export.cohorts import commands
    from edgehem.machine import usable_cpus

    if arguments.name == "list":
        sys.stdout.write(commands.listing() + "\n")
        return EXIT_DONE
    if arguments.out is None:
        raise UsageError("edgehem cohort NAME needs OUT, a folder to write")
    table = commands.cohort(
        arguments.name,
        arguments.out,
        patients=arguments.patients,
        seed=arguments.seed,
        variant=arguments.variant,
        files=arguments.files,
        cases=arguments.cases,
        workers=arguments.workers or (usable_cpus() if arguments.files else 1),
        progress=progress,
    )
    sys.stdout.write(f"{table}\n")
    return EXIT_DONE


def exam(arguments: argparse.Namespace) -> int:
    """``edgehem exam``: what could be reached, and what simple models reach."""
    ask_for_file("--json", arguments.json)
    ask_for_file("--markdown", arguments.markdown)
    from edgehem.export.cohorts import commands, exam_report
    from edgehem.machine import usable_cpus

    made = commands.exam(
        arguments.cohorts,
        quick=arguments.quick,
        seed=arguments.seed,
        workers=arguments.workers or usable_cpus(),
        progress=lambda done, count: say(f"{done} of {count} cohorts examined"),
    )
    sys.stdout.write(exam_report.to_text(made))
    leave(
        (arguments.json, lambda: exam_report.to_json(made)), (arguments.markdown, lambda: exam_report.to_markdown(made))
    )
    return EXIT_DONE if made.passed else EXIT_FAILED
