"""What a support engineer asks of a Jetson: which one, which release, power mode, clocks, heat, memory.

Everything is read from files that any user may read, and nothing is written. Each of them may be missing: releases
differ, and a container shows few. No Jetson was at hand: paths and forms are those of NVIDIA's documentation and of
files that users of such devices have published (docs/jetson.md).

References
----------
NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance" (releases 36 and 38). Linux kernel documentation:
sysfs-class-devfreq, cpufreq, thermal, hwmon.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
NVPMODEL_S = 2.0
"""For ``nvpmodel -q``, which is asked only where no file tells the mode."""
COLDEST_C = -40.0
"""A zone whose part is switched off reads -256 °C on some releases; no Jetson works below this."""
SERIES = {36: "6", 38: "7", 39: "7"}
"""JetPack by the major release of Jetson Linux (NVIDIA, JetPack archive)."""
GPU_NODES = re.compile(r"(?:.*\.)?(?:gpu|ga10b|gv11b)|gpu-gpc-\d+")
"""Names under /sys/class/devfreq: ``17000000.gpu`` or ``17000000.ga10b`` on Orin, ``gpu-gpc-0`` on Thor."""
MOST_BYTES = 1 << 25
"""Of a file that is read: the list of packages has a few MB."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The limits of one clock, MHz; equal where it is locked, as ``jetson_clocks`` does."""

    name: str
    low_mhz: int
    high_mhz: int

    @property
    def locked(self) -> bool:
        return self.low_mhz == self.high_mhz


@dataclass(frozen=True, kw_only=True)
class Zone:
    """One thermal zone, degrees Celsius; ``throttles_c`` is where the system begins to slow down, if it says so."""

    name: str
    celsius: float
    throttles_c: float | None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """MiB. CPU and GPU share the memory. ``swap`` counts ``zram``, which is compressed memory, not a disk."""

    total_mib: int
    available_mib: int
    swap_mib: int
    swap_used_mib: int
    zram_mib: int


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """A Jetson. What its system does not tell is empty, or None.

    Parameters
    ----------
    model, soc : str
        As the device tree names them; ``tegra234`` is Orin, ``tegra264`` Thor.
    l4t, jetpack : str
        Release of Jetson Linux, ``36.4.3``, and version of the package ``nvidia-jetpack``.
    power_mode : str
        Its name, or its number where that is all there is.
    power_modes : tuple of str
        Those that this device has.
    clocks : tuple of Clock
        Of the GPU and of the CPU's groups of cores.
    zones : tuple of Zone
    throttling : tuple of str
        Signs that the device was or is slowed down, in words.
    memory : Memory or None
    dla : int
        Deep learning accelerators that the kernel shows.
    fans : tuple of str
        What each says of its speed.
    """

    model: str
    soc: str
    l4t: str
    jetpack: str
    power_mode: str
    power_modes: tuple[str, ...]
    clocks: tuple[Clock, ...]
    zones: tuple[Zone, ...]
    throttling: tuple[str, ...]
    memory: Memory | None
    dla: int
    fans: tuple[str, ...]

    @property
    def series(self) -> str:
        """JetPack's major version, from its package or else from Jetson Linux; empty for one that is not known."""
        major = int(self.l4t.partition(".")[0] or 0)
        return self.jetpack.partition(".")[0] or SERIES.get(major, "")

    @property
    def hottest(self) -> Zone | None:
        return max(self.zones, key=lambda zone: zone.celsius, default=None)


def look(root: Path = ROOT, *, ask: Callable[[], str] | None = None) -> Jetson | None:
    """Look at this device.

    Parameters
    ----------
    root : Path
        The root of the files, for tests.
    ask : callable, optional
        What ``nvpmodel -q`` prints. By default the tool is run, and only where `root` is the machine's own and no file
        tells the mode.

    Returns
    -------
    Jetson or None
        None on anything else.
    """
    compatible = _text(root / "proc/device-tree/compatible")
    release = _text(root / "etc/nv_tegra_release")
    soc = re.search(r"tegra\d+", compatible)
    if not release and soc is None:
        return None
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", release)
    versions = packages(("nvidia-jetpack",), root)
    mode, modes = _power(root, ask or (nvpmodel if root == ROOT else str))
    zones = _zones(root)
    return Jetson(
        model=_text(root / "proc/device-tree/model"),
        soc=soc[0] if soc else "",
        l4t=f"{found[1]}.{found[2]}" if found else "",
        jetpack=versions.get("nvidia-jetpack", ""),
        power_mode=mode,
        power_modes=modes,
        clocks=(*_gpu_clocks(root), *_cpu_clocks(root)),
        zones=zones,
        throttling=(*_too_hot(zones), *_cooling(root), *_over_current(root)),
        memory=_memory(root),
        dla=_dla(root),
        fans=_fans(root),
    )


def packages(names: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """Versions of those of some Debian packages that are installed, without starting ``dpkg``."""
    wanted = set(names)
    found: dict[str, str] = {}
    for entry in _text(root / "var/lib/dpkg/status").split("\n\n"):
        head = re.match(r"Package: (\S+)", entry.lstrip("\n"))
        if head is None or head[1] not in wanted:
            continue
        version = re.search(r"^Version: (\S+)", entry, re.M)
        if version and re.search(r"^Status: \S+ \S+ installed$", entry, re.M):
            found[head[1]] = version[1]
    return found


def nvpmodel() -> str:
    """What ``nvpmodel -q`` prints; empty where there is none, or where it fails or does not answer."""
    tool = shutil.which("nvpmodel") or shutil.which("nvpmodel", path="/usr/sbin")
    if tool is None:
        return ""
    try:
        done = subprocess.run(
            [tool, "-q"], capture_output=True, text=True, check=False, timeout=NVPMODEL_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout


def _power(root: Path, ask: Callable[[], str]) -> tuple[str, tuple[str, ...]]:
    """The power mode, and the names of all."""
    names = {
        int(number): name
        for number, name in re.findall(
            r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf"), re.M
        )
    }
    known = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if known is not None:
        return names.get(int(known[1]), str(int(known[1]))), tuple(names.values())
    said = re.search(r"NV Power Mode:\s*(\S+)", ask())
    return said[1] if said else "", tuple(names.values())


def _gpu_clocks(root: Path) -> list[Clock]:
    nodes = [*_listed(root / "sys/class/devfreq"), *_listed(root / "sys/devices/gpu.0/devfreq")]
    clocks = []
    for node in nodes:
        names = (node.name, _text(node / "device/of_node/name"))
        limits = _number(node / "min_freq"), _number(node / "max_freq")
        if any(GPU_NODES.fullmatch(name) for name in names) and None not in limits:
            low, high = limits
            assert low is not None and high is not None
            clocks.append(Clock(name=f"GPU {node.name}", low_mhz=low // 10**6, high_mhz=high // 10**6))
    return list({clock.name: clock for clock in clocks}.values())


def _cpu_clocks(root: Path) -> list[Clock]:
    clocks = []
    for policy in _listed(root / "sys/devices/system/cpu/cpufreq", "policy*"):
        low, high = _number(policy / "scaling_min_freq"), _number(policy / "scaling_max_freq")
        if low is not None and high is not None:
            clocks.append(
                Clock(name=f"CPU {policy.name.removeprefix('policy')}", low_mhz=low // 1000, high_mhz=high // 1000)
            )
    return clocks


def _zones(root: Path) -> tuple[Zone, ...]:
    zones = []
    for folder in _listed(root / "sys/class/thermal", "thermal_zone*"):
        heat = _number(folder / "temp")  # a zone whose part is switched off refuses to be read
        if heat is None or heat / 1000 < COLDEST_C:
            continue
        trips = []
        for kind in _listed(folder, "trip_point_*_type"):
            at = _number(folder / kind.name.replace("_type", "_temp"))
            if _text(kind) == "passive" and at is not None and at > 0:
                trips.append(at / 1000)
        zones.append(
            Zone(name=_text(folder / "type") or folder.name, celsius=heat / 1000, throttles_c=min(trips, default=None))
        )
    return tuple(zones)


def _too_hot(zones: tuple[Zone, ...]) -> list[str]:
    return [
        f"{zone.name} is at {zone.celsius:.1f} °C and throttles from {zone.throttles_c:.1f}"
        for zone in zones
        if zone.throttles_c is not None and zone.celsius >= zone.throttles_c
    ]


def _cooling(root: Path) -> list[str]:
    """What the kernel slows down at this moment. A fan cools, too, and is no such thing."""
    found = []
    for device in _listed(root / "sys/class/thermal", "cooling_device*"):
        kind, state = _text(device / "type"), _number(device / "cur_state")
        if state and "fan" not in kind:
            most = _number(device / "max_state")
            found.append(f"{kind or device.name} is at {state}" + (f" of {most}" if most is not None else ""))
    return found


def _over_current(root: Path) -> list[str]:
    """Events of too much current or too little voltage since the start, which slow CPU and GPU down."""
    found = []
    for chip in _listed(root / "sys/class/hwmon"):
        if _text(chip / "name") != "soctherm_oc":
            continue
        for counter in _listed(chip, "oc*_event_cnt"):
            if count := _number(counter):
                name = counter.name.partition("_")[0]
                found.append(f"{count} over-current or under-voltage events since the start ({name})")
    return found


def _memory(root: Path) -> Memory | None:
    sizes = {
        name: int(size) >> 10 for name, size in re.findall(r"^(\w+):\s*(\d+) kB", _text(root / "proc/meminfo"), re.M)
    }
    if "MemTotal" not in sizes:
        return None
    # Filename, type, size, used, priority; sizes in KiB.
    swaps = [line.split() for line in _text(root / "proc/swaps").splitlines()[1:]]
    zram = [int(row[2]) for row in swaps if len(row) >= 4 and "zram" in row[0] and row[2].isdecimal()]
    total = sizes.get("SwapTotal", 0)
    return Memory(
        total_mib=sizes["MemTotal"],
        available_mib=sizes.get("MemAvailable", sizes.get("MemFree", 0)),
        swap_mib=total,
        swap_used_mib=total - sizes.get("SwapFree", total),
        zram_mib=sum(zram) >> 10,
    )


def _dla(root: Path) -> int:
    """Devices of the kernel's DLA driver, wherever this release puts them: ``15880000.nvdla0`` and its like."""
    places = ("sys/devices/platform", "sys/devices/platform/bus@0", "sys/bus/platform/devices")
    names = {node.name for place in places for node in _listed(root / place, "*nvdla[0-9]*")}
    for place in places:
        for host in _listed(root / place, "*host1x*"):
            names |= {node.name for node in _listed(host, "*nvdla[0-9]*")}
    return len({name[name.index("nvdla") :].partition(":")[0] for name in names})


def _fans(root: Path) -> tuple[str, ...]:
    found = []
    for chip in _listed(root / "sys/class/hwmon"):
        duty = _number(chip / "pwm1")
        speed = next((n for name in ("fan1_input", "rpm") if (n := _number(chip / name)) is not None), None)
        if duty is not None:
            found.append(f"{duty * 100 / 255:.0f} % duty")
        if speed is not None:
            found.append(f"{speed} rpm")
    return tuple(found)


def _listed(folder: Path, pattern: str = "*") -> list[Path]:
    """What is in a folder, 2 before 10."""
    try:
        return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []


def _text(path: Path) -> str:
    """A file's text without what ends it, device-tree strings included; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES)
    except OSError:
        return ""
    return content.decode("utf-8", errors="replace").strip("\0 \t\r\n")


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
