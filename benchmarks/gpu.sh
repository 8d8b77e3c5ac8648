#!/usr/bin/env bash
# Everything that a machine with an NVIDIA GPU can show, in one go: benchmarks/gpu.sh [--out FOLDER] [--dry-run]
#
# Runs in a checkout, in an environment where edgehem is installed with [tensorrt] and [test]. Each step is a process of
# its own with a limit and a log; one that fails does not stop the next, and what is not installed is passed over with a
# sentence. Plans and compiled kernels go to a scratch folder: the user's own state is neither used nor changed.
#
# Exit code: 0 all that could run passed; 1 something failed; 2 wrong arguments; 3 no GPU, and nothing was written.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON=${PYTHON:-python3}
RESULTS=benchmarks/results
DRY=no
while (($#)); do
    case $1 in
    --out) RESULTS=${2:?--out needs a folder}; shift 2 ;;
    --dry-run) DRY=yes; shift ;;
    *) echo "usage: benchmarks/gpu.sh [--out FOLDER] [--dry-run]" >&2; exit 2 ;;
    esac
done

# So that a module beside its own source is never taken for the installed package.
export PYTHONSAFEPATH=1
ENGINES=("$PYTHON" benchmarks/gpu_engines.py)

# The machine first: without a GPU nothing is written.
if [[ $DRY == no ]]; then
    MACHINE=$("${ENGINES[@]}" probe) || exit $?
    SCRATCH=$(mktemp -d)
    trap 'rm -rf -- "$SCRATCH"' EXIT
    OUT=$RESULTS/gpu-$(date -u +%Y%m%dT%H%M%SZ)
    mkdir -p "$OUT" || exit 1
    printf '%s\n' "$MACHINE" >"$OUT/machine.json"
else
    SCRATCH=/tmp/scratch OUT=$RESULTS/gpu-DATE
fi
STEPS=$SCRATCH/steps.tsv
STUDY=$SCRATCH/study
export EDGEHEM_STATE=$SCRATCH/state EDGEHEM_CACHE=$SCRATCH/cache

note() { # NAME STATE SECONDS LOG SENTENCE
    local sentence=${5//[$'\t\n|']/ }
    printf '%-34s %-12s %5s s  %s\n' "$1" "$2" "$3" "$sentence" >&2
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$sentence" >>"$STEPS"
}

step() { # NAME LIMIT_S COMMAND...: standard output to NAME.json or .txt, the rest to NAME.log
    local name=$1 limit=$2 begun=$SECONDS code sentence
    shift 2
    if [[ $DRY == yes ]]; then
        printf '%s (at most %s s): %s\n' "$name" "$limit" "$*"
        return 0
    fi
    timeout --kill-after=30 "$limit" "$@" >"$OUT/$name.out" 2>"$OUT/$name.log"
    code=$?
    sentence=$(grep -v '^[[:space:]]*$' "$OUT/$name.log" | tail -n 1 | cut -c 1-300)
    case $code in
    0) note "$name" passed $((SECONDS - begun)) "$name.log" "" ;;
    3) note "$name" "passed over" $((SECONDS - begun)) "$name.log" "$sentence" ;;
    124 | 137) note "$name" FAILED $((SECONDS - begun)) "$name.log" "not done after $limit s" ;;
    *) note "$name" FAILED $((SECONDS - begun)) "$name.log" "exit code $code: $sentence" ;;
    esac
    return $code
}

skip() { # NAME SENTENCE
    if [[ $DRY == yes ]]; then printf '%s: passed over, %s\n' "$1" "$2"; else note "$1" "passed over" 0 "" "$2"; fi
}

passed() { # ENGINE: whether its step above did; ONNX Runtime on the CPU is what all are compared with
    [[ $DRY == yes || $1 == onnxruntime ]] || grep -q "^engine-$1"$'\t'"passed"$'\t' "$STEPS"
}

step doctor 120 "$PYTHON" -m edgehem.cli doctor --json

# Kernels: the oracle first, then bandwidth; under the sanitizer where CUDA's toolkit is there.
if command -v compute-sanitizer >/dev/null; then
    step kernels 3600 "$PYTHON" benchmarks/gpu_kernels.py --out "$OUT" --sanitize
else
    skip sanitizer "compute-sanitizer is not on the PATH: the kernels run without it"
    step kernels 1800 "$PYTHON" benchmarks/gpu_kernels.py --out "$OUT"
fi
step tests-gpu 1800 "${ENGINES[@]}" tests gpu
step tests-tensorrt 1800 "${ENGINES[@]}" tests tensorrt

# Each engine on a GPU, ONNX Runtime's providers among them, in a process of its own.
NAMES=$("${ENGINES[@]}" names) || NAMES=""
[[ -n $NAMES ]] || skip engines "the engines cannot be listed"
for name in $NAMES; do
    step "engine-$name" 3600 "${ENGINES[@]}" engine "$name"
done
step device-path 3600 "${ENGINES[@]}" device tensorrt

# The way a site goes: compile, then studies, first in new processes and then in one. Each engine is compiled by name
# before it triages: what is compiled for auto qualifies the plans of what it chose.
step compile 7200 "$PYTHON" -m edgehem.cli compile hemorrhagenet --json
if step phantom 300 "$PYTHON" -m edgehem.cli phantom "$STUDY" --bleed intraparenchymal:30 --seed 5; then
    for name in onnxruntime $NAMES; do
        if ! passed "$name"; then
            skip "triage-$name" "the engine did not pass above"
        elif step "compile-$name" 7200 "$PYTHON" -m edgehem.cli compile hemorrhagenet --backend "$name" --json; then
            step "cold-$name" 600 "${ENGINES[@]}" cold "$STUDY/dicom" "$name"
            step "warm-$name" 900 "${ENGINES[@]}" warm "$STUDY/dicom" "$name"
        fi
    done
else
    skip triage "there is no study to triage"
fi

# What edgehem bench has: the CPU's side of the same machine, for comparison.
step bench-kernels 1800 "$PYTHON" -m edgehem.cli bench kernels --quick --json "$OUT/bench-kernels.json"
step bench-intake 1800 "$PYTHON" -m edgehem.cli bench intake --quick --json "$OUT/bench-intake.json"
if "$PYTHON" -c 'import torch, onnx, monai' 2>/dev/null; then
    step bench-engines 7200 "$PYTHON" -m edgehem.cli bench engines --quick --json "$OUT/bench-engines.json"
else
    skip bench-engines "it needs the [export] extra"
fi

[[ $DRY == yes ]] && exit 0
"${ENGINES[@]}" summary "$STEPS" "$OUT/machine.json" "$OUT" >/dev/null
code=$?
echo "written: $OUT" >&2
exit $code
