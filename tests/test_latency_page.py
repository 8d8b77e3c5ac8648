"""The pages: one file, nothing from the network, nothing that a result holds is taken for markup."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehem.benchmarks.latency import page, verdict
from edgehem.benchmarks.latency.report_compare import SIGNS
from edgehem.benchmarks.latency.thresholds import Thresholds

NOISE = runpy.run_path(str(Path(__file__).parent / "latency_noise.py"))
result: Callable[..., dict[str, Any]] = NOISE["result"]
case: Callable[..., dict[str, Any]] = NOISE["case"]
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Holds a page to what it promises, and collects its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture
def two() -> tuple[dict[str, Any], dict[str, Any]]:
    """Results with a case of every verdict, and one that grew."""
    rng = np.random.default_rng(2)
    base, new = result({}), result({})
    for name, slower, noise in (("slow", 1.3, 0.02), ("fast", 0.7, 0.02), ("same", 1, 0.01), ("noisy", 1, 0.5)):
        for each, by in ((base, 1.0), (new, slower)):
            each["cases"].append(case(name, 10 * by * np.exp(rng.normal(0, noise, 40))))
    for each in (base, new):
        each["cases"].append(case("short", [0.05] * 40))
    new["cases"][2]["peak_bytes"] = 300 << 20
    return base, new


def compared(base: dict[str, Any], new: dict[str, Any], **how: Any) -> str:
    return page.comparison(verdict.compare(base, new, Thresholds(), **how), base, new)


def test_every_verdict_has_a_word_and_a_sign(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    text = read(compared(*two)).text
    for word, sign in SIGNS.items():
        assert f"{sign} {word}" in text
    assert len(set(SIGNS.values())) == len(SIGNS)
    assert "peak of memory went from 100 to 300 MiB" in text
    assert "Paired: round by round" in text
    assert text.index("▲ SLOWER") < text.index("= SAME")


@pytest.mark.parametrize("kind", ["result", "comparison"])
def test_a_page_needs_nothing_else(two: tuple[dict[str, Any], dict[str, Any]], kind: str) -> None:
    reader = read(page.result(two[0]) if kind == "result" else compared(*two))
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "src"
            assert name != "href" or re.fullmatch(r"#case\d+", value or ""), (tag, value)
            assert "url(" not in (value or "") and "http" not in (value or "").removeprefix(
                "http://www.w3.org/2000/svg"
            )
    policy = [attributes["content"] for tag, attributes in reader.tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    anchors = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors)) == 5


@pytest.mark.parametrize("kind", ["result", "comparison"])
def test_nothing_in_a_result_is_markup(two: tuple[dict[str, Any], dict[str, Any]], kind: str) -> None:
    evil = "</svg><script>alert(1)</script>\"'&\x00"
    base, new = two
    for each in (base, new):
        for entry in each["cases"]:
            entry |= {"name": entry["name"] + evil, "what": evil}
        each |= {"revision": evil, "made": evil, "passed_over": {evil: evil}}
        each["served"] = {**each["served"], "engine": evil, evil: evil}
        each["settings"] = {evil: evil}
    new["environment"] = {**new["environment"], "cpu": evil, "numpy": evil}
    new["cases"].append(case(evil, [1.0] * 30))
    base["cases"].append(case(evil + "2", [1.0] * 30))
    text = page.result(new) if kind == "result" else compared(base, new, allow_different=True)
    assert "script" not in {tag for tag, _ in read(text).tags}
    assert "<script" not in text and "\x00" not in text
    assert "alert(1)" in read(text).text


def pictures(text: str) -> list[ET.Element]:
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.S)]


def dots(picture: ET.Element) -> int:
    return sum(dot.attrib["r"] == "2" for dot in picture.iter("{http://www.w3.org/2000/svg}circle"))


def test_every_round_is_drawn_inside_of_its_picture(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    two[1]["cases"][0]["samples_ms"][3] = 1e6
    assert [dots(each) for each in pictures(page.result(two[0]))] == [40] * 5
    found = pictures(compared(*two))
    assert [dots(each) for each in found] == [0, *[80, 40] * 5]
    for picture in found:
        for dot in picture.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(dot.attrib["cx"]) <= page.PLOT
            assert 0 <= float(dot.attrib["cy"]) <= float(picture.attrib["height"])


def test_ratios_of_rounds_are_drawn_for_pairs_only(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, new = two
    assert len(pictures(compared(base, {**new, "session": "other"}))) == 1 + 5


def test_different_conditions_stand_at_the_top_and_in_the_table(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, new = two
    new["environment"] = {**new["environment"], "cpu": "Other CPU"}
    text = read(compared(base, new, allow_different=True)).text
    assert text.index("Not the same conditions") < text.index("base: edgehem")
    assert text.count("≠") == 1 and "≠" not in read(compared(base, base)).text


def test_missing_cases_are_told(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    base, new = two
    new["cases"].pop(0)
    assert "MISSING in the new result: slow" in read(compared(base, new)).text


def test_results_with_no_single_times_have_a_page() -> None:
    bare = result({"a": [1.0]})
    bare["cases"][0] |= {"samples_ms": [], "p95_ms": None}
    assert "No single times" in page.result(bare)
    text = compared(bare, bare)
    assert "No ratio has an interval" in text and "? AMBIGUOUS" in read(text).text
