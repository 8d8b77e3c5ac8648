#!/usr/bin/env bash
# edgehem on a Jetson: docs/jetson/install.sh [--venv DIR] [--from WHAT] [--bundle NAME] [--no-compile] [--dry-run]
#
# Checks the release, makes a virtual environment that sees JetPack's TensorRT, installs edgehem, builds pycuda against
# JetPack's CUDA, compiles the kernels for this device, and lets `edgehem compile` choose an engine. Whatever is there
# already is kept, so it may be run again. It never uses sudo: what needs it is printed. --dry-run prints every command
# and runs none. No Jetson has run this script yet: see docs/jetson.md.
set -euo pipefail

VENV=$HOME/edgehem-venv
FROM=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUNDLE=hemorrhagenet
COMPILE=yes
DRY=no
ROOT=${EDGEHEM_JETSON_ROOT:-} # another root of the system's files, for tests: only with --dry-run
CUDA=/usr/local/cuda
PYCUDA='pycuda>=2025.1'

usage() {
    echo "usage: install.sh [--venv DIR] [--from WHAT] [--bundle NAME] [--no-compile] [--dry-run]" >&2
    exit 2
}

while (($#)); do
    case $1 in
    --venv) VENV=${2:?--venv needs a folder}; shift 2 ;;
    --from) FROM=${2:?--from needs a wheel, a folder or a requirement}; shift 2 ;;
    --bundle) BUNDLE=${2:?--bundle needs a name or a folder}; shift 2 ;;
    --no-compile) COMPILE=no; shift ;;
    --dry-run) DRY=yes; shift ;;
    *) usage ;;
    esac
done

[[ $VENV == /* ]] || VENV=$PWD/$VENV
[[ ! -d $BUNDLE ]] || BUNDLE=$(cd "$BUNDLE" && pwd)

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
run() {
    if [[ $DRY == yes ]]; then
        printf 'would run:'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}
needed() { # WHAT REMEDY: a dry run goes on
    if [[ $DRY == yes ]]; then say "needs: $1 ($2)"; else fail "$1 is missing; $2"; fi
}

[[ -z $ROOT || $DRY == yes ]] || fail "EDGEHEM_JETSON_ROOT is for --dry-run"

# 1. Which device, which release. The release decides Python and CUDA, the chip decides the machine code: from JetPack
# 7.2 on, Orin has Jetson Linux 39 as Thor does.
[[ -r $ROOT/etc/nv_tegra_release ]] || fail "this is no Jetson: there is no /etc/nv_tegra_release"
L4T=$(sed -nE 's/^# R([0-9]+).*REVISION: *([0-9.]+).*/\1.\2/p' "$ROOT/etc/nv_tegra_release" | head -n 1)
SOC=$(tr '\0' '\n' <"$ROOT/proc/device-tree/compatible" | sed -nE 's/.*(tegra[0-9]+).*/\1/p' | head -n 1)
case ${L4T%%.*} in
36) JETPACK=6 ;;
38 | 39) JETPACK=7 ;;
*) fail "Jetson Linux '${L4T:-of no version}' is not known here: 36 (JetPack 6), 38 and 39 (JetPack 7) are" ;;
esac
case $SOC in
tegra234) ARCH=87 NAME=Orin ;;
tegra264) ARCH=110 NAME=Thor ;;
*) fail "the chip '${SOC:-unknown}' is not known here: tegra234 (Orin) and tegra264 (Thor) are" ;;
esac
say "$NAME, Jetson Linux $L4T, JetPack $JETPACK: kernels for sm_$ARCH"

# 2. What comes from JetPack and Ubuntu. The bindings of TensorRT are a system package: pip has none that fits.
PATH=$PATH:$CUDA/bin
command -v nvcc >/dev/null || needed nvcc "sudo apt-get install nvidia-jetpack"
command -v g++ >/dev/null || needed g++ "sudo apt-get install build-essential"
python3 -c 'import venv, ensurepip' 2>/dev/null || needed python3-venv "sudo apt-get install python3-venv"
python3 -c 'import sysconfig, pathlib; (pathlib.Path(sysconfig.get_path("include")) / "Python.h").stat()' 2>/dev/null ||
    needed python3-dev "sudo apt-get install python3-dev"
python3 -c 'import tensorrt' 2>/dev/null || needed "TensorRT for Python" "sudo apt-get install python3-libnvinfer"

# 3. A virtual environment that sees it.
if [[ -f $VENV/pyvenv.cfg ]]; then
    grep -qi '^include-system-site-packages *= *true' "$VENV/pyvenv.cfg" ||
        fail "$VENV does not see system packages, and so no TensorRT: choose another folder with --venv"
    say "kept: $VENV"
else
    run python3 -m venv --system-site-packages "$VENV"
fi
PYTHON=$VENV/bin/python
run "$PYTHON" -m pip install --upgrade pip

# 4. edgehem. Not with its [tensorrt] extra: pip may not see that JetPack's TensorRT is one, and fetch another.
run "$PYTHON" -m pip install --upgrade "$FROM"

# 5. pycuda, from source against JetPack's CUDA, without cuRAND. Its settings go beside its own sources: a file of the
# user's in the home folder (~/.aksetup-defaults.py) is not touched, and what it says is overruled.
if [[ $DRY == no ]] && "$PYTHON" -c 'import pycuda.driver' 2>/dev/null; then
    say "kept: pycuda"
else
    if [[ $DRY == yes ]]; then WORK=/tmp/edgehem-pycuda; else WORK=$(mktemp -d); fi
    trap '[[ $DRY == yes ]] || rm -rf -- "$WORK"' EXIT
    run "$PYTHON" -m pip download --no-deps --no-binary pycuda --dest "$WORK" "$PYCUDA"
    run mkdir "$WORK/source"
    # Braces: one archive, whose version is not known before it is here.
    run bash -c 'tar --extract --file "$1"/pycuda-*.tar.gz --directory "$1/source" --strip-components 1' tar "$WORK"
    SETTINGS="CUDA_ROOT = '$CUDA'
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ['$CUDA/lib64/stubs']"
    if [[ $DRY == yes ]]; then
        say "would write $WORK/source/siteconf.py:"
        say "$SETTINGS"
    else
        say "$SETTINGS" >"$WORK/source/siteconf.py"
    fi
    run "$PYTHON" -m pip install "$WORK/source"
fi

# 6. The kernels ahead of time, so that no first study waits for nvcc. Not in the source folder, whose edgehem is not
# the one that was installed.
run cd /
run "$PYTHON" -m edgehem.kernels.build --arch "$ARCH"

# 7. What this device can run, and which engine is the fastest that stays true. That takes minutes, and says so.
run "$VENV/bin/edgehem" doctor
if [[ $COMPILE == yes ]]; then
    say "edgehem compile builds plans: minutes each; it prints what it does"
    run "$VENV/bin/edgehem" compile "$BUNDLE"
fi
say "done: $VENV/bin/edgehem. Run edgehem compile again after a change of power mode, JetPack or edgehem."
