"""What this machine can run, and why not the rest. Looks only at this machine: nothing is fetched or sent."""

from __future__ import annotations

import json
import os
import platform
import re
import textwrap
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from typing import Any

from edgehem.doctor_gpu import examine_gpu, render_gpu
from edgehem.machine import usable_cpus

SCHEMA = "edgehem.doctor/1"
WIDTH = 100

REQUIRED = ("numpy", "pydicom", "onnxruntime", "msgspec")

BRINGS = {
    "report": "pictures of the key slices (key_slices.png)",
    "codecs": "decoders for compressed DICOM (JPEG lossless, JPEG-LS, JPEG 2000, HTJ2K)",
    "cpu": "the OpenVINO engine, which reads INT8 graphs several times as fast",
    "tensorrt": "the TensorRT engine on an NVIDIA GPU, and the CUDA kernels' driver (on a Jetson: docs/jetson.md)",
    "rtx": "TensorRT for NVIDIA RTX workstations, as a provider of ONNX Runtime",
    "sign": "sign and verify: bundles that a device can hold to their maker",
    "ecg": "nothing yet: held for ECG input",
    "serve": "nothing yet: held for the scanner-side service",
    "batch": "nothing yet: held for cohorts on many machines",
    "export": "train, export and quantize: checkpoints to ONNX to INT8",
    "bench": "make bench, and the peers of edgehem bench (OpenCV, SimpleITK, SciPy)",
    "test": "the test suite",
    "all": "every extra but tensorrt and rtx, which need an NVIDIA GPU",
    "dev": "everything for working on edgehem itself",
}
"""What each extra of pyproject.toml is for."""

COMPRESSED = {
    "1.2.840.10008.1.2.5": "RLE lossless",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K lossless, RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.4.50": "JPEG baseline (8 bit)",
    "1.2.840.10008.1.2.4.51": "JPEG extended (12 bit)",
}
"""Transfer syntaxes that need a codec (DICOM PS3.5 section 8.2)."""

USED_PROVIDER = "CPUExecutionProvider"
"""What the engine ``onnxruntime`` runs on. A wheel may list others, remote ones among them."""
ENGINE_OF_PROVIDER = {"CUDAExecutionProvider": "onnxruntime-cuda", "TensorrtExecutionProvider": "onnxruntime-tensorrt"}
"""Providers that are engines of their own. All others are never started."""

SELF_REFERENCE = "edgehem"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One line of the package's own metadata: a distribution, its lowest version, the extra that asks for it.

    ``parts`` names edgehem's other extras, where the line is one of those (``edgehem[test,bench]``).
    """

    distribution: str
    lowest: str
    extra: str
    parts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, line: str) -> Requirement | None:
        """Read ``name[parts]>=version; extra == "x"``, the form pyproject.toml uses; None without an extra."""
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", line)
        head = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*\(?(?:>=\s*([0-9][^,;)\s]*))?", line)
        if extra is None or head is None:
            return None
        parts = tuple(part.strip() for part in (head[2] or "").split(",") if part.strip())
        return cls(distribution=head[1], lowest=head[3] or "", extra=extra[1], parts=parts)

    def missing(self) -> str:
        """Why this requirement is not met, or the empty string."""
        installed = version_of(self.distribution)
        if installed is None:
            return self.distribution
        if self.lowest and _numbers(installed) < _numbers(self.lowest):
            return f"{self.distribution} {installed} is older than {self.lowest}"
        return ""


def examine() -> dict[str, Any]:
    """Look at this machine.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.doctor/1``), ready for JSON.
    """
    return {
        "schema": SCHEMA,
        "edgehem": version_of("edgehem"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": _cpus(),
        "packages": {name: version_of(name) for name in REQUIRED},
        "onnxruntime": _onnxruntime(),
        "engines": _engines(),
        "kernels": _kernels(),
        "gpu": examine_gpu(),
        "bundles": _bundles(),
        "extras": _extras(),
        "codecs": _codecs(),
    }


def render_examination(examination: dict[str, Any]) -> str:
    """The same for a person, at most 100 columns wide."""
    cpus, engine = examination["cpus"], examination["onnxruntime"]
    here = [
        f"edgehem {examination['edgehem'] or '(not installed)'}, Python {examination['python']}",
        examination["platform"],
        f"CPUs: {cpus['usable']} usable of {cpus['present']}",
    ]
    packages = [_line(bool(version), name, version or "missing") for name, version in examination["packages"].items()]
    known = {found["name"] for found in examination["engines"]}
    used = {USED_PROVIDER} | {name for name, own in ENGINE_OF_PROVIDER.items() if own in known}
    unused = [name for name in engine["providers"] if name not in used]
    aside = f" (listed by this build, never used: {', '.join(unused)})" if unused else ""
    engines = [_line(engine["ready"], "onnxruntime", engine["why_not"] or USED_PROVIDER + aside)]
    engines += [
        _line(
            not found["why_not"],
            found["name"],
            (found["why_not"] or ", ".join(filter(None, [found["version"], *found["arithmetics"]])))
            + (" (on request)" if found["on_request"] else ""),
        )
        for found in examination["engines"]
        if found["name"] != "onnxruntime"
    ]
    kernels = [_line(entry["ready"], entry["name"], entry["detail"]) for entry in examination["kernels"]["candidates"]]
    kernels.append(_who_runs(examination["kernels"]))
    bundles = [
        _line(
            not bundle["why_not"],
            bundle["name"],
            bundle["why_not"]
            or f"{bundle['version']}"
            + (", demonstration weights: not for patients" if bundle["demonstration"] else ""),
        )
        for bundle in examination["bundles"]
    ]
    extras = []
    for extra in examination["extras"]:
        extras.append(_line(extra["installed"], extra["name"], extra["brings"]))
        if not extra["installed"]:
            extras.append(f"        missing: {', '.join(extra['missing'])}")
            extras.append(f"        to have it: pip install 'edgehem[{extra['name']}]'")
    codecs = [
        _line(codec["ready"], codec["name"], codec["why_not"] or f"with {', '.join(codec['plugins'])}")
        for codec in examination["codecs"]
    ]
    sections = [
        here,
        ["Needed packages", *packages],
        ["Inference engines", *engines],
        ["Preprocessing kernels (the same numbers from each)", *kernels],
        *render_gpu(examination["gpu"]),
        ["Bundles that ship", *(bundles or ["  none"])],
        ["Extras (each optional)", *extras],
        ["Compressed images (uncompressed ones need no codec)", *codecs],
    ]
    lines = [line for section in sections for line in (*section, "")]
    return "\n".join(
        piece for line in lines for piece in (textwrap.wrap(line, WIDTH, subsequent_indent=" " * 8) or [""])
    )


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpus() -> dict[str, int]:
    return {"usable": usable_cpus(), "present": os.cpu_count() or 1}


def _onnxruntime() -> dict[str, Any]:
    try:
        import onnxruntime

        providers = list(onnxruntime.get_available_providers())
    except Exception as error:  # a broken native library raises whatever it likes, and is what a doctor is asked about
        return {"ready": False, "providers": [], "why_not": f"cannot be imported: {type(error).__name__}"}
    ready = USED_PROVIDER in providers
    return {"ready": ready, "providers": providers, "why_not": "" if ready else f"has no {USED_PROVIDER}"}


def _engines() -> list[dict[str, Any]]:
    """Every engine: its version and arithmetics, or why it cannot be used."""
    try:
        from edgehem.backends import engines
    except ImportError:
        return []  # a needed package is missing, which is said there
    found = []
    for engine in engines():
        arithmetics: list[str] = []
        try:
            # An engine that would open a device to answer, and compile kernels for it, looks without.
            why_not = getattr(engine, "look", engine.missing)()
            arithmetics = [] if why_not else list(engine.arithmetics())
        except Exception as error:  # a broken driver or library, which is what a doctor is asked about
            why_not = f"cannot be examined: {type(error).__name__}"
        found.append({
            "name": engine.name,
            "version": engine.version(),
            "arithmetics": arithmetics,
            "on_request": engine.on_request,
            "why_not": why_not,
        })  # fmt: skip
    return found


def _kernels() -> dict[str, Any]:
    try:
        from edgehem.kernels.selection import candidates, selection
    except ImportError as error:
        return {"candidates": [], "cpu": None, "gpu": None, "why_not": f"cannot be imported: {error}"}
    found = candidates()
    return {"candidates": [asdict(candidate) for candidate in found], **asdict(selection(found))}


def _who_runs(kernels: dict[str, Any]) -> str:
    if kernels["why_not"]:
        return f"        none runs: {kernels['why_not']}"
    return f"        an engine on the CPU takes {kernels['cpu']}, one on a GPU would take {kernels['gpu']}"


def _bundles() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for folder in sorted(resources.files("edgehem.bundles").iterdir(), key=lambda entry: entry.name):
        manifest = folder / "bundle.json"
        if not manifest.is_file():
            continue
        entry: dict[str, Any] = {"name": folder.name, "version": None, "demonstration": None, "why_not": ""}
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            entry |= {"version": content["version"], "demonstration": bool(content["demonstration"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            entry["why_not"] = f"its manifest cannot be read: {type(error).__name__}"
        found.append(entry)
    return found


def _codecs() -> list[dict[str, Any]]:
    try:
        from edgehem.dicom.codec import DECODERS
        from edgehem.supervise import SUPPORTED
    except ImportError:
        return []  # numpy is missing, which the needed packages say already
    found = []
    for uid, name in COMPRESSED.items():
        trusted = DECODERS.get(uid, ())
        plugins = [decoder.name for decoder in trusted if decoder.installed]
        if not trusted:
            why_not = "refused: decoders do not agree on its values"
        elif not SUPPORTED:
            why_not = "refused: this system has no child processes with limits"
        else:
            why_not = "" if plugins else f"needs {' or '.join(decoder.name for decoder in trusted)}"
        # In the order in which they are tried; none but these is ever used.
        found.append({"name": name, "uid": uid, "ready": not why_not, "plugins": plugins, "why_not": why_not})
    return found


def _extras() -> list[dict[str, Any]]:
    try:
        lines = metadata.requires("edgehem") or []
    except metadata.PackageNotFoundError:
        lines = []
    requirements = [requirement for line in lines if (requirement := Requirement.parse(line)) is not None]
    names = list(dict.fromkeys(requirement.extra for requirement in requirements))
    extras = []
    for name in names:
        missing = _missing(name, requirements)
        extras.append({"name": name, "installed": not missing, "missing": missing, "brings": BRINGS.get(name, "")})
    return extras


def _missing(extra: str, requirements: list[Requirement]) -> list[str]:
    """What keeps an extra from being complete, its parts included (an extra never names itself)."""
    gaps: list[str] = []
    for requirement in requirements:
        if requirement.extra != extra:
            continue
        if requirement.distribution == SELF_REFERENCE:
            gaps += [gap for part in requirement.parts for gap in _missing(part, requirements)]
        elif gap := requirement.missing():
            gaps.append(gap)
    return list(dict.fromkeys(gaps))


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, comparable: ``2.13.0+cpu`` is (2, 13, 0)."""
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _line(good: bool, name: str, text: str) -> str:
    return f"  {'yes' if good else 'no ':3}  {name:<28}{text}".rstrip()
