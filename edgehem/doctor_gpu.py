"""The doctor's part about GPUs: the devices, TensorRT, the plans that were made, and what a Jetson says of itself.

Devices are asked what they are, which needs the driver and no context: nothing is compiled, allocated or written.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from edgehem import jetson

SYSTEM_PACKAGES = ("python3-libnvinfer", "libnvinfer10", "libnvinfer11")
"""What JetPack installs instead: the bindings, and the library by its major version."""
HASH_DIGITS = 12
MOST_PLANS = 8
"""Shown to a person; JSON has all."""


def examine_gpu(root: Path = jetson.ROOT) -> dict[str, Any]:
    """Look at the GPUs of this machine.

    Parameters
    ----------
    root : Path
        The root of the system's files, for tests.

    Returns
    -------
    dict
        Plain values, ready for JSON.
    """
    gpus, tensorrt, board = _gpus(), _tensorrt(root), jetson.look(root)
    return {
        "gpus": gpus,
        "tensorrt": tensorrt,
        "plans": _plans(gpus, tensorrt),
        "jetson": None
        if board is None
        else {
            **asdict(board),
            "series": board.series,
            "clocks": [{**asdict(clock), "locked": clock.locked} for clock in board.clocks],
            "hottest": None if board.hottest is None else board.hottest.name,
        },
    }


def render_gpu(found: dict[str, Any]) -> list[list[str]]:
    """The same for a person: sections of lines. Two short lines where there is nothing of all this."""
    gpus, tensorrt, plans = found["gpus"], found["tensorrt"], found["plans"]
    lines = ["GPUs (an engine on the CPU needs none)"]
    lines += [
        _row(
            "yes",
            gpu["name"],
            f"compute capability {gpu['capability']}, {gpu['multiprocessors']} multiprocessors, "
            f"{gpu['memory_mib']} MiB{' shared with the CPU' if gpu['integrated'] else ''}, "
            f"driver {gpu['driver'] or 'of unknown version'}, CUDA {gpu['cuda']}",
        )
        for gpu in gpus["found"]
    ]
    if gpus["why_not"]:
        driver = f"; driver {gpus['driver']} is loaded" if gpus["driver"] else ""
        lines.append(_row("no", "none can be used", gpus["why_not"] + driver))
    said = ", ".join(filter(None, (tensorrt["version"], tensorrt["package"])))
    aside = f" ({said})" if said else ""
    lines.append(_row("no" if tensorrt["why_not"] else "yes", "TensorRT", (tensorrt["why_not"] + aside) or said))
    if plans["why_not"]:
        lines.append(f"        plans: {plans['why_not']}")
    shown = plans["found"][:MOST_PLANS]
    lines += [
        _row(
            "yes" if plan["qualified"] and plan["fits"] else "no",
            f"plan of {plan['engine']}",
            f"graph {plan['graph']}, made {plan['made']}, " + _state(plan),
        )
        for plan in shown
    ]
    if (more := len(plans["found"]) - len(shown)) > 0:
        lines.append(f"        and {more} older plans")
    return [lines, _board(found["jetson"])] if found["jetson"] else [lines]


def _gpus() -> dict[str, Any]:
    try:
        import msgspec

        from edgehem import gpu
        from edgehem.kernels.errors import KernelError
    except ImportError:
        return {"found": [], "driver": "", "why_not": "a needed package is missing"}
    try:
        return {"found": [msgspec.to_builtins(each) for each in gpu.gpus()], "driver": "", "why_not": ""}
    except KernelError as error:
        return {"found": [], "driver": gpu.driver_version(), "why_not": str(error)}
    except Exception as error:  # a broken driver raises whatever it likes, and is what a doctor is asked about
        return {"found": [], "driver": gpu.driver_version(), "why_not": f"cannot be asked: {type(error).__name__}"}


def _tensorrt(root: Path) -> dict[str, Any]:
    """Which TensorRT, who installed it, and why it cannot be used. It is imported, which opens no device."""
    try:
        from edgehem.backends.tensorrt.api import load
        from edgehem.errors import BackendError
    except ImportError:
        return {"version": "", "package": "", "why_not": "a needed package is missing"}
    try:
        api, why_not = load(), ""
        version = str(api.__version__)
    except BackendError as error:
        version, why_not = _own_version(), str(error)
    return {"version": version, "package": _installed_by(root), "why_not": why_not}


def _own_version() -> str:
    """Of a module that was imported, and refused all the same."""
    try:
        return str(getattr(importlib.import_module("tensorrt"), "__version__", ""))
    except Exception:
        return ""


def _installed_by(root: Path) -> str:
    # JetPack's bindings are a Debian package, which a virtual environment sees only with --system-site-packages. It may
    # bring Python's metadata, too: where the module lies tells the two apart.
    found = jetson.packages(SYSTEM_PACKAGES, root)
    system = next((f"system package {name} {found[name]}" for name in SYSTEM_PACKAGES if name in found), "")
    if system and "dist-packages" in (_module_file() or "dist-packages"):
        return system
    try:
        from edgehem.backends.tensorrt import DISTRIBUTIONS
    except ImportError:
        return system  # a needed package is missing, which is said
    for name in DISTRIBUTIONS:
        try:
            return f"package {name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return system


def _module_file() -> str:
    """Where the module ``tensorrt`` lies; empty where nobody knows."""
    try:
        spec = importlib.util.find_spec("tensorrt")
    except (ImportError, ValueError):
        return ""
    return (spec.origin or "") if spec is not None else ""


def _plans(gpus: dict[str, Any], tensorrt: dict[str, Any]) -> dict[str, Any]:
    try:
        from edgehem.device import plans
        from edgehem.plans import GRAPH, PlanStore
        from edgehem.state import check_private
    except ImportError:
        return {"found": [], "why_not": ""}  # said above
    try:
        folder = plans()
        check_private(folder)
    except FileNotFoundError:
        return {"found": [], "why_not": ""}  # nothing was ever compiled
    except OSError as error:
        return {"found": [], "why_not": f"not used: {error.strerror or error}"}
    here = _here(gpus)
    found = []
    for record in PlanStore(folder).records():
        there = dict(here)
        if record.engine.startswith("tensorrt") and tensorrt["version"] and not tensorrt["why_not"]:
            there["TensorRT"] = tensorrt["version"]
        unlike = [
            f"{name} was {record.key[name]}, is {there[name]}"
            for name in there
            if name in record.key and record.key[name] != there[name]
        ]
        if not here:
            unlike.append("there is no GPU to compare with")
        elif record.engine.startswith("tensorrt") and "TensorRT" not in there:
            unlike.append("there is no TensorRT to compare with")
        found.append({
            "engine": record.engine,
            "graph": record.key.get(GRAPH, "")[:HASH_DIGITS],
            "arithmetic": record.key.get("arithmetic", ""),
            "made": record.made,
            "bytes": record.bytes,
            "qualified": record.qualified is not None,
            "fits": not unlike,
            "unlike": unlike,
        })  # fmt: skip
    return {"found": found, "why_not": ""}


def _here(gpus: dict[str, Any]) -> dict[str, str]:
    """What a plan's key says of the GPU, for the device that engines use; empty without one."""
    if not gpus["found"]:
        return {}
    from edgehem import gpu
    from edgehem.kernels.errors import KernelError

    try:
        return gpu.key_parts()
    except KernelError:
        return {}


def _state(plan: dict[str, Any]) -> str:
    parts = ["qualified" if plan["qualified"] else "never compared with the reference: edgehem compile"]
    parts.append("fits this machine" if plan["fits"] else "does not fit: " + "; ".join(plan["unlike"]))
    return ", ".join(parts)


def _board(board: dict[str, Any]) -> list[str]:
    """A Jetson's section."""
    release = " ".join(
        filter(
            None, (board["l4t"] and f"Jetson Linux {board['l4t']}", board["series"] and f"(JetPack {board['series']})")
        )
    )
    modes = f" (there are {', '.join(board['power_modes'])})" if board["power_modes"] else ""
    lines = [
        "Jetson",
        _fact("model", ", ".join(filter(None, (board["model"], board["soc"]))) or "unknown"),
        _fact("release", release + (f", nvidia-jetpack {board['jetpack']}" if board["jetpack"] else "") or "unknown"),
        _fact("power mode", (board["power_mode"] or "unknown") + modes),
        _fact("clocks", "; ".join(map(_clock, board["clocks"])) or "unknown"),
    ]
    zones = {zone["name"]: zone for zone in board["zones"]}
    heat = "unknown"
    if board["hottest"] in zones:
        hottest = zones[board["hottest"]]
        heat = f"hottest is {hottest['name']}, {hottest['celsius']:.1f} °C"
        if hottest["throttles_c"] is not None:
            heat += f", throttles from {hottest['throttles_c']:.1f}"
    lines.append(_fact("heat", heat + (f"; fan {', '.join(board['fans'])}" if board["fans"] else "")))
    lines.append(_fact("throttling", "; ".join(board["throttling"]) or "no sign of it"))
    if memory := board["memory"]:
        swap = f"{memory['swap_mib']} MiB of swap, {memory['swap_used_mib']} used"
        zram = f" ({memory['zram_mib']} in zram)" if memory["zram_mib"] else ""
        lines.append(
            _fact(
                "memory",
                f"{memory['total_mib']} MiB, {memory['available_mib']} available; "
                + (swap + zram if memory["swap_mib"] else "no swap"),
            )
        )
    lines.append(_fact("DLA", str(board["dla"]) if board["dla"] else "none that the kernel shows"))
    return lines


def _clock(clock: dict[str, Any]) -> str:
    limits = f"locked at {clock['high_mhz']}" if clock["locked"] else f"{clock['low_mhz']} to {clock['high_mhz']}"
    return f"{clock['name']} {limits} MHz"


def _row(good: str, name: str, text: str) -> str:
    return f"  {good:3}  {name:<28}{text}".rstrip()


def _fact(name: str, text: str) -> str:
    return f"       {name:<28}{text}".rstrip()
