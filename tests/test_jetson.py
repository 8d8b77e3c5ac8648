"""What is read of a Jetson, on folders laid out like one. No Jetson was at hand: the forms come from documentation and
from files that owners of such devices published; the numbers are made up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgehem import jetson
from edgehem.jetson import Clock, Jetson, Memory, Zone, look

NVPMODEL_CONF = """\
# FORMAT:
# < POWER_MODEL ID=id_num NAME=mode_name >
< PARAM TYPE=FILE NAME=GPU_POWER_CONTROL_ENABLE >
GPU_PWR_CNTL_EN /sys/devices/platform/gpu.0/power/control
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=MODE_15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MODE_30W >
CPU_ONLINE CORE_0 1
< PM_CONFIG DEFAULT=2 >
"""

DPKG = """\
Package: libnvinfer10
Status: install ok installed
Architecture: arm64
Version: 10.3.0.30-1+cuda12.5

Package: nvidia-jetpack-dev
Status: install ok installed
Version: 9.9

Package: nvidia-jetpack
Status: {status}
Description: NVIDIA Jetpack Meta Package
Version: 6.2+b77
"""

ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64, DATE: a day\n",
    "var/lib/dpkg/status": DPKG.format(status="install ok installed"),
    "etc/nvpmodel.conf": NVPMODEL_CONF,
    "var/lib/nvpmodel/status": "pmode:0002",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "612000000\n",
    "sys/class/devfreq/15340000.vic/min_freq": "115200000\n",
    "sys/class/devfreq/15340000.vic/max_freq": "729600000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq": "1728000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq": "1728000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51500\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "104500\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "99000\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone8/temp": "53062\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    "sys/class/hwmon/hwmon0/pwm1": "51\n",
    "sys/class/hwmon/hwmon1/name": "pwm_tach\n",
    "sys/class/hwmon/hwmon1/rpm": "1870\n",
    "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon2/oc3_event_cnt": "0\n",
    "sys/devices/platform/bus@0/13e00000.host1x/15880000.nvdla0/uevent": "DRIVER=nvdla\n",
    "sys/devices/platform/bus@0/13e00000.host1x/158c0000.nvdla1/uevent": "DRIVER=nvdla\n",
    "proc/meminfo": "MemTotal: 31433728 kB\nMemFree: 1024 kB\nMemAvailable: 20480000 kB\n"
    "SwapTotal: 15716864 kB\nSwapFree: 15714816 kB\n",
    "proc/swaps": "Filename Type Size Used Priority\n"
    "/dev/zram0 partition 1309736 0 5\n/dev/zram1 partition 1309736 2048 5\n",
}

THOR = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: a day\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n< PM_CONFIG DEFAULT=1 >\n",
    "sys/class/devfreq/gpu-gpc-0/min_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/min_freq": "315000000\n",
    "sys/class/devfreq/gpu-nvd-0/max_freq": "1692000000\n",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "44000\n",
    "proc/meminfo": "MemTotal: 128819200 kB\nMemAvailable: 102400000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
}


def laid_out(root: Path, *files: Mapping[str, str]) -> Path:
    for layout in files:
        for name, text in layout.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def seen(root: Path, ask: Callable[[], str] = str) -> Jetson:
    found = look(root, ask=ask)
    assert found is not None
    return found


def test_an_orin_with_jetpack_6(tmp_path: Path) -> None:
    found = seen(laid_out(tmp_path, ORIN))
    assert found == Jetson(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        soc="tegra234",
        l4t="36.4.3",
        jetpack="6.2+b77",
        power_mode="MODE_30W",
        power_modes=("MAXN", "MODE_15W", "MODE_30W"),
        clocks=(
            Clock(name="GPU 17000000.gpu", low_mhz=306, high_mhz=612),
            Clock(name="CPU 0", low_mhz=729, high_mhz=1728),
            Clock(name="CPU 4", low_mhz=1728, high_mhz=1728),
        ),
        zones=(
            Zone(name="cpu-thermal", celsius=51.5, throttles_c=99.0),
            Zone(name="tj-thermal", celsius=53.062, throttles_c=None),
        ),
        throttling=(),
        memory=Memory(total_mib=30697, available_mib=20000, swap_mib=15348, swap_used_mib=2, zram_mib=2558),
        dla=2,
        fans=("20 % duty", "1870 rpm"),
    )
    assert [clock.locked for clock in found.clocks] == [False, False, True]
    assert found.hottest is not None and found.hottest.name == "tj-thermal"
    assert found.series == "6"


def test_a_thor_with_jetpack_7(tmp_path: Path) -> None:
    found = seen(laid_out(tmp_path, THOR), ask=lambda: "NV Power Mode: 120W\n1\n")
    assert (found.soc, found.l4t, found.jetpack, found.series) == ("tegra264", "38.2.0", "", "7")
    assert (found.power_mode, found.power_modes) == ("120W", ("MAXN", "120W"))
    assert found.clocks == (Clock(name="GPU gpu-gpc-0", low_mhz=1575, high_mhz=1575),)
    assert found.dla == 0 and found.fans == ()
    assert found.memory is not None and found.memory.swap_mib == 0


@pytest.mark.parametrize("layout", [{}, {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"}])
def test_anything_else_is_no_jetson(tmp_path: Path, layout: dict[str, str]) -> None:
    assert look(laid_out(tmp_path, layout)) is None


@pytest.mark.parametrize("name", ORIN)
def test_any_file_may_be_missing_or_nonsense(tmp_path: Path, name: str) -> None:
    """A container shows some files only; and what cannot be read as a number is not one."""
    root = laid_out(tmp_path, ORIN)
    for broken in (b"\xff\xfe nonsense \0\0", b""):
        (root / name).write_bytes(broken)
        assert look(root, ask=str) is not None
    (root / name).unlink()
    assert look(root, ask=str) is not None
    (root / name).mkdir()
    assert look(root, ask=str) is not None


def test_a_container_that_shows_the_device_tree_alone(tmp_path: Path) -> None:
    found = seen(laid_out(tmp_path, {"proc/device-tree/compatible": "nvidia,tegra234\0"}))
    assert (found.soc, found.l4t, found.series, found.power_mode) == ("tegra234", "", "", "")
    assert found.memory is None and found.hottest is None and found.clocks == ()


def test_the_gpu_is_found_by_what_the_device_tree_calls_it(tmp_path: Path) -> None:
    node = "sys/class/devfreq/17000000.renamed"
    files = {f"{node}/min_freq": "1\n", f"{node}/max_freq": "612000000\n", f"{node}/device/of_node/name": "ga10b\0"}
    found = seen(laid_out(tmp_path, ORIN, files))
    assert Clock(name="GPU 17000000.renamed", low_mhz=0, high_mhz=612) in found.clocks


def test_signs_of_throttling(tmp_path: Path) -> None:
    hot = {
        "sys/class/thermal/thermal_zone0/temp": "99500\n",
        "sys/class/thermal/cooling_device1/cur_state": "1\n",
        "sys/class/thermal/cooling_device1/max_state": "3\n",
        "sys/class/hwmon/hwmon2/oc3_event_cnt": "37\n",
    }
    assert seen(laid_out(tmp_path, ORIN, hot)).throttling == (
        "cpu-thermal is at 99.5 °C and throttles from 99.0",
        "gpu-throttle-alert is at 1 of 3",
        "37 over-current or under-voltage events since the start (oc3)",
    )


def test_a_power_mode_without_a_name_is_its_number(tmp_path: Path) -> None:
    found = seen(laid_out(tmp_path, ORIN, {"var/lib/nvpmodel/status": "pmode:0007 fmode:quiet"}))
    assert found.power_mode == "7"


def test_the_tool_is_asked_only_where_no_file_tells_the_mode(tmp_path: Path) -> None:
    def never() -> str:
        raise AssertionError("asked")

    assert seen(laid_out(tmp_path, ORIN), ask=never).power_mode == "MODE_30W"
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    assert (
        seen(tmp_path, ask=lambda: "NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W\n1\n").power_mode
        == "MODE_15W"
    )
    assert seen(tmp_path, ask=lambda: "NVPM ERROR: only root can run this").power_mode == ""


def test_a_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvpmodel"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setattr(jetson, "NVPMODEL_S", 0.2)
    begun = time.monotonic()
    assert jetson.nvpmodel() == ""
    assert time.monotonic() - begun < 10
    tool.write_text("#!/bin/sh\n[ $# = 1 ] && [ $1 = -q ] && echo 'NV Power Mode: MAXN'\n")
    monkeypatch.setattr(jetson, "NVPMODEL_S", 10)
    assert jetson.nvpmodel() == "NV Power Mode: MAXN\n"


@pytest.mark.parametrize("status", ["deinstall ok config-files", "install reinstreq half-installed"])
def test_a_package_that_was_removed_is_not_installed(tmp_path: Path, status: str) -> None:
    laid_out(tmp_path, {"var/lib/dpkg/status": DPKG.format(status=status)})
    assert jetson.packages(("nvidia-jetpack", "libnvinfer10"), tmp_path) == {"libnvinfer10": "10.3.0.30-1+cuda12.5"}


def test_looking_writes_nothing(tmp_path: Path) -> None:
    root = laid_out(tmp_path, ORIN)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    look(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
