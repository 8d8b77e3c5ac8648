"""Whether a graph is ready for TensorRT: rules with stable names, the places that break them, and the remedies.

No TensorRT is needed: the rules hold what its parser and builder, releases 10 and 11 with strongly typed networks, are
known to refuse or to compute otherwise. Where TensorRT for RTX is installed, tests hold the rules to its builder, which
needs no GPU. Passing them is necessary, not sufficient; the device's builder has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgehem.bundle import Graph
from edgehem.errors import BudgetError
from edgehem.export import tensorrt_network, tensorrt_quantised
from edgehem.export.graph import opened
from edgehem.export.tensorrt_view import ERROR, WARNING, Finding, Rule, View

SCHEMA = "edgehem.readiness/1"
RULES: tuple[Rule, ...] = (*tensorrt_quantised.RULES, *tensorrt_network.RULES)
SHOWN = 5
"""Places of a finding in text; JSON has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the rules found in one graph."""

    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the graph from TensorRT."""
        return tuple(finding for finding in self.findings if finding.rule.severity == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What it could do better."""
        return tuple(finding for finding in self.findings if finding.rule.severity == WARNING)

    @property
    def ready(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def text(self) -> str:
        """For people: a verdict, then every finding with its places, reason and remedy."""
        counts = f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        lines = [f"{'ready' if self.ready else 'not ready'} for TensorRT: {counts}"]
        for finding in sorted(self.findings, key=lambda finding: finding.rule.severity):
            rule, more = finding.rule, len(finding.places) - SHOWN
            places = "; ".join(f"{name} ({detail})" for name, detail in finding.places[:SHOWN])
            lines += [
                f"{rule.severity} {rule.id}: {rule.looks_for}",
                f"  where: {places}" + (f"; and {more} more" if more > 0 else ""),
                f"  why: {rule.reason}",
                f"  remedy: {rule.remedy}",
            ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For programs and records: everything."""
        return {
            "schema": SCHEMA,
            "ready": self.ready,
            "rules": len(RULES),
            "onnx": onnx.__version__,
            "findings": [
                {
                    "rule": finding.rule.id,
                    "severity": finding.rule.severity,
                    "why": finding.rule.reason,
                    "remedy": finding.rule.remedy,
                    "places": [{"name": name, "detail": detail} for name, detail in finding.places],
                }
                for finding in self.findings
            ],
        }


def lint(model: onnx.ModelProto) -> Report:
    """Hold every rule against a graph; any graph gets a report, a broken one too."""
    view = View(model)
    found = ((rule, tuple(dict.fromkeys(rule.find(view)))) for rule in RULES)
    return Report(findings=tuple(Finding(rule=rule, places=places) for rule, places in found if places))


def lint_file(path: Path) -> Report:
    """The same for a file.

    Raises
    ------
    UsageError
        If it is missing or no ONNX.
    """
    return lint(opened(path)[0])


def readiness(folder: Path, graphs: Sequence[Graph]) -> dict[str, Any]:
    """Whether TensorRT would take a bundle's graphs, for its manifest: all that are meant for it must pass.

    Parameters
    ----------
    folder : Path
    graphs : sequence of Graph
        Those of form ``qdq-u8`` are for ONNX Runtime alone, and not looked at.
    """
    reports = {graph.file: lint_file(folder / graph.file) for graph in graphs if graph.form != "qdq-u8"}
    return {
        "ready": all(report.ready for report in reports.values()),
        "rules": len(RULES),
        "graphs": {
            file: {
                "errors": sorted({finding.rule.id for finding in report.errors}),
                "warnings": sorted({finding.rule.id for finding in report.warnings}),
            }
            for file, report in reports.items()
        },
    }


def require_ready(model: onnx.ModelProto) -> Report:
    """Refuse what TensorRT would.

    Raises
    ------
    BudgetError
        With the report as text.
    """
    report = lint(model)
    if not report.ready:
        raise BudgetError(report.text())
    return report


def table() -> str:
    """The rules as a Markdown table, for ``docs/export.md``."""

    def rows() -> Iterator[str]:
        yield "| rule | severity | looks for | why | remedy |"
        yield "|---|---|---|---|---|"
        for rule in RULES:
            yield f"| `{rule.id}` | {rule.severity} | {rule.looks_for} | {rule.reason} | {rule.remedy} |"

    return "\n".join(rows()) + "\n"
