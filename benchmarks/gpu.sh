#!/usr/bin/env bash
# Everything that needs a GPU, in one go, on a machine that may be there for a quarter of an hour and has no network.
#
#     OUT=folder bash benchmarks/gpu.sh [PART...]
#
# Parts, in this order unless named: environment, tests, steps (optimizer steps on three lists of weights), whole
# (whole training steps), vgg19 (CIFAR-10, which OPENWORK_DATA must hold; without it that part is left out). Each runs
# under a time limit of its own, and all together under LIMIT_S seconds (560 unless set); what a part has left when it
# is stopped is kept. Results collect in RESULTS (build/gpu unless set), from where an interrupted part goes on when it
# is called again, and after every part in OUT: gpu.log, the tables, and results.tar.gz with everything but checkpoints.
# To take them over: tar -xzf results.tar.gz -C benchmarks/results && python benchmarks/readme_table.py
#
# PYTHON names the interpreter (python3 unless set). It needs torch for CUDA with Triton, numpy, typing_extensions,
# accelerate, rich and safetensors; pytest, hypothesis and psutil for the tests; and nothing else of the package's list.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD
OUT=${OUT:-$root/build/gpu-out}
RESULTS=${RESULTS:-$root/build/gpu}
PYTHON=${PYTHON:-python3}
LIMIT_S=${LIMIT_S:-560}
EPOCHS=${EPOCHS:-50}
mkdir -p "$OUT" "$RESULTS"
log=$OUT/gpu.log
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OPENWORK_RESULTS=$RESULTS
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$RESULTS/triton}
failed=()

pack() {
    find "$RESULTS" -maxdepth 1 -name '*.json' -exec cp {} "$OUT" \;
    tar -czf "$OUT/results.tar.gz" -C "$RESULTS" --exclude=triton --exclude='*.pt' .
}

# say PART LIMIT COMMAND...: run a command for so many seconds at most, and no longer than there is time for.
say() {
    local part=$1 limit=$2 left=$((LIMIT_S - SECONDS)) begin=$SECONDS code=0
    shift 2
    ((left < limit)) && limit=$left
    if ((limit < 15)); then
        echo "== $part: no time left" | tee -a "$log"
        failed+=("$part")
        return
    fi
    echo "== $part: $limit s at most" | tee -a "$log"
    # Asked to end first, so that it can save.
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee -a "$log" || code=$?
    echo "== $part: exit status $code after $((SECONDS - begin)) s" | tee -a "$log"
    ((code == 0)) || failed+=("$part")
    pack
}

environment() {
    say environment 60 "$PYTHON" -c '
import importlib.metadata as metadata, platform, subprocess, torch
print(platform.platform(), "Python", platform.python_version())
for name in ("torch", "triton", "numpy", "accelerate", "safetensors", "llvmlite", "pytest", "hypothesis"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "missing")
print("CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version(), "NCCL", torch.cuda.nccl.version())
for i in range(torch.cuda.device_count()):
    print(torch.cuda.get_device_properties(i))
subprocess.run(["nvidia-smi"])
assert torch.cuda.is_available(), "torch finds no CUDA"
'
}

tests() {
    # Warnings of other versions than the tests know are no errors here. In several processes, where there is
    # pytest-xdist: most of the time goes into compiling. Processes that talk by NCCL come last, since they can hang.
    local files pytest=("$PYTHON" -m pytest -v --tb=short -W default -p no:cacheprovider)
    mapfile -t files < <(grep -rlE 'pytest\.mark\.gpu' tests --include='test_*.py' | grep -v test_sharded | sort)
    "$PYTHON" -c 'import xdist' >/dev/null 2>&1 && pytest+=(-n 8)
    say tests 150 "${pytest[@]}" -m gpu "${files[@]}"
    say triton 60 "${pytest[@]}" tests/kernels/test_triton.py
    say nccl 80 "${pytest[@]}" -m gpu tests/optim/test_sharded.py
}

steps() { say steps 180 "$PYTHON" benchmarks/fused_step.py; }

whole() { say whole 120 "$PYTHON" benchmarks/whole_step.py; }

vgg19() {
    if [[ ! -d ${OPENWORK_DATA:-}/cifar10 ]]; then
        echo "== vgg19: OPENWORK_DATA holds no cifar10/, left out" | tee -a "$log"
        return
    fi
    # No epoch begins in the last half minute, in which the last one ends and is saved.
    say vgg19 "$LIMIT_S" "$PYTHON" benchmarks/cifar10_vgg19.py "$EPOCHS" $((LIMIT_S - SECONDS - 30))
}

for part in "${@:-environment tests steps whole vgg19}"; do
    for one in $part; do
        case $one in
        environment | tests | steps | whole | vgg19) "$one" ;;
        *)
            echo "gpu.sh: there is no part $one; the parts are environment, tests, steps, whole and vgg19" >&2
            exit 2
            ;;
        esac
    done
done
echo "== all together: $SECONDS s; not through: ${failed[*]:-none}" | tee -a "$log"
((${#failed[@]} == 0))
