#!/usr/bin/env bash
# The proof on a GPU, in one command: builds the compute rooms alone, compares every
# kernel and every network with what defines it, times the networks beside PyTorch on
# the same weights, runs compute-sanitizer, and writes one page to
# bench/results/gpu-DEVICE.md. What each step found is kept when a later one fails or
# the time is up.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<'EOF'
usage: bench/gpu.sh [OPTIONS]

  --limit SECONDS   time for everything, PyTorch's installation too (default 840)
  --python EXE      a Python with torch (CUDA), safetensors and yaml; default: the
                    benchmark's own in BUILD/venv, else python3, else as with --venv
  --venv            make BUILD/venv and install PyTorch (PyPI) into it
  --cudnn DIR       a folder with include/cudnn.h and lib/libcudnn.so.9; default: the
                    Python's nvidia/cudnn, else where the system has it
  --build DIR       default ROOT/build-gpu; the raw results stay in BUILD/gpu-results
  --out DIR         where the page goes (default bench/results)
  --deps DIR        Debian packages unpacked there (dpkg -x) stand in for installed ones
  --self-check      no GPU: the whole way with stand-ins and tiny networks, in a BUILD
                    that is configured and built

Exit status: 0; 1 something failed or differs; 2 something is missing, and named.
EOF
}

limit=840 python='' venv=no cudnn=${CUDNN_ROOT:-} build=$root/build-gpu out=$root/bench/results
deps='' self_check=no
while [ $# -gt 0 ]; do
    case $1 in
    --limit) limit=$2; shift ;;
    --python) python=$2; shift ;;
    --venv) venv=yes ;;
    --cudnn) cudnn=$2; shift ;;
    --build) build=$2; shift ;;
    --out) out=$2; shift ;;
    --deps) deps=$(realpath "$2"); shift ;;
    --self-check) self_check=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift || { usage >&2; exit 2; }
done
cd "$root" || exit 2
PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin # where images put them
mkdir -p "$build" "$out"
build=$(realpath "$build") out=$(realpath "$out")
work=$build/gpu-results
rm -rf "$work"
mkdir -p "$work"

# ---- what must be there -----------------------------------------------------

missing=0
need() { # WHAT, WHERE TO GET IT
    echo "bench/gpu.sh: missing: $1 ($2)" >&2
    missing=1
}
leave_if_missing() { [ "$missing" = 0 ] || exit 2; }

use_deps() { # unpacked packages keep the system's paths below DIR
    local lib=$deps/usr/lib/x86_64-linux-gnu
    export CPATH=$deps/usr/include${CPATH:+:$CPATH}
    export LIBRARY_PATH=$lib${LIBRARY_PATH:+:$LIBRARY_PATH}
    export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export PKG_CONFIG_PATH=$lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
}

has_torch() {
    "$1" -c 'import torch, safetensors, yaml; assert torch.version.cuda' 2>/dev/null
}

look_for_gpu() {
    nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
    [ -n "$nvcc" ] || need nvcc "the CUDA toolkit: developer.nvidia.com/cuda-downloads"
    [[ $(nvidia-smi -L 2>/dev/null) == "GPU 0"* ]] ||
        need "a GPU" "nvidia-smi shows none: an NVIDIA GPU of compute capability 8.0 or newer, with its driver"
    for tool in meson ninja pkg-config cc c++; do
        command -v "$tool" >/dev/null || need "$tool" "packaging/debian-packages.txt"
    done
    for package in jansson yaml-0.1 cmocka zlib; do
        pkg-config --exists "$package" 2>/dev/null ||
            need "$package" "packaging/debian-packages.txt, or unpacked with --deps"
    done
    # It has no .pc file, and is of use only with what it needs itself.
    printf '%s\n' '#include <dnnl.h>' \
        'int main(void) { return dnnl_version()->major != 2 || DNNL_VERSION_MAJOR != 2; }' |
        cc -x c - -ldnnl -o "$work/dnnl" 2>"$work/dnnl.log" && "$work/dnnl" 2>>"$work/dnnl.log" ||
        need "oneDNN 2.x${deps:+ that works, in $deps}" \
            "libdnnl-dev, libdnnl2 and ocl-icd-libopencl1, or unpacked with --deps"
}

choose_python() {
    [ "$venv" = no ] || rm -rf "$build/venv"
    [ -n "$python" ] || { has_torch "$build/venv/bin/python" && python=$build/venv/bin/python; }
    [ -n "$python" ] || { [ "$venv" = no ] && has_torch python3 && python=$(command -v python3); }
    if [ -z "$python" ]; then
        echo "== PyTorch into $build/venv"
        python3 -m venv "$build/venv" &&
            "$build/venv/bin/pip" install -q --retries 1 --timeout 20 torch numpy pyyaml safetensors \
                >"$work/pip.log" 2>&1
        python=$build/venv/bin/python
    fi
    has_torch "$python" || {
        echo "bench/gpu.sh: $python has no PyTorch with CUDA (PyPI: torch): the page goes without it" >&2
        python=
    }
}

# Sets cudnn (empty: the system's) and cudnn_version: the first that is new enough.
look_for_cudnn() {
    local header seen='' places=("$cudnn")
    if [ -z "$cudnn" ]; then
        [ -z "$python" ] || places=("$("$python" -c \
            'import nvidia.cudnn as c; print(list(c.__path__)[0])' 2>/dev/null)" "")
    fi
    for cudnn in "${places[@]}"; do
        header=$cudnn/include/cudnn_version.h
        [ -n "$cudnn" ] || header=$(ls /usr/include/cudnn_version.h \
            /usr/include/x86_64-linux-gnu/cudnn_version.h \
            /usr/local/cuda/include/cudnn_version.h 2>/dev/null | head -1)
        cudnn_version=$(awk '/define CUDNN_MAJOR/ { a = $3 } /define CUDNN_MINOR/ { b = $3 }
            /define CUDNN_PATCHLEVEL/ { c = $3 } END { if (a) print a "." b "." c }' \
            "${header:-/dev/null}" 2>/dev/null)
        case $cudnn_version in
        '' | [1-8].* | 9.?.* | 9.1[0-4].*) seen=${seen:-$cudnn_version} ;;
        *) return ;;
        esac
    done
    need "cuDNN >= 9.15${seen:+ (this is $seen)}" \
        "PyPI nvidia-cudnn-cu13, which --venv installs; or --cudnn DIR"
}

write_versions() {
    local smi
    smi=$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total \
        --format=csv,noheader | head -1)
    python3 - "$smi" "$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')" \
        "$cudnn_version" "$(git rev-parse --short HEAD 2>/dev/null)" >"$work/versions.json" <<'EOF'
import json, os, sys, time
name, driver, sm, memory = [x.strip() for x in sys.argv[1].split(",")]
print(json.dumps({"device": name, "driver": driver, "sm": sm, "memory": memory, "cuda": sys.argv[2],
                  "cudnn": sys.argv[3], "commit": sys.argv[4], "cores": os.cpu_count(),
                  "date": time.strftime("%Y-%m-%d")}))
EOF
}

# ---- steps ------------------------------------------------------------------

failed=0
page() { python3 bench/gpu/table.py "$work" "$out" || failed=1; }

# step NAME SECONDS COMMAND...: no longer than that, nor than what is left of the time.
# Its output is NAME.log; the page is written anew after each.
step() {
    local name=$1 most=$2 left=$((limit - SECONDS)) start=$SECONDS rc
    shift 2
    [ "$left" -le "$most" ] || left=$most
    if [ "$left" -lt 5 ]; then
        rc=late
    else
        echo "== $name (at most $left s)"
        timeout -k 5 "$left" "$@" >>"$work/$name.log" 2>&1
        rc=$?
    fi
    [ "$rc" = 0 ] || [ "$rc" = 77 ] || { failed=1; echo "   $name: $rc, see $work/$name.log" >&2; }
    printf '%s\t%s\t%s\n' "$name" "$rc" "$((SECONDS - start))" >>"$work/steps.tsv"
    page
}

build_rooms() {
    local sm
    sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
    [ -f "$build/build.ninja" ] ||
        meson setup "$build" "$root" --buildtype=release -Dwerror=false -Dcompute_only=true \
            -Dcuda=enabled -Dgpu_archs="$sm" ${cudnn:+-Dcudnn_root="$cudnn"} || return 1
    ninja -C "$build"
}

# Kernels against their twins, networks against PyTorch's golden tensors.
compare_operators() {
    meson test -C "$build" --no-rebuild --suite gpu --print-errorlogs
    local rc=$?
    cp "$build/meson-logs/testlog.json" "$work/operators.json"
    # There is a GPU here: a test that finds none has failed.
    ! grep -q '"result": "SKIP"' "$work/operators.json" || { echo "skipped, beside a GPU"; return 1; }
    return $rc
}

# network BUNDLE STAGE PRECISION BATCH REPEATS [OPTIONS]: right, and how fast, in C.
network() {
    local bundle=$1 stage=$2 precision=$3 batch=$4 repeats=$5
    shift 5
    "$build/bench/gpu/net_gpu" "$bundle" "$stage" --precision "$precision" --batch "$batch" \
        --repeats "$repeats" --check --plans "$work/plans-$precision.txt" "$@" >>"$work/nets.jsonl"
}

# The batches that are served: the four phases, ten candidates, one lesion.
batch_of() {
    case $1 in detector) echo 4 ;; ksf) echo 10 ;; *) echo 1 ;; esac
}

bundle_networks() { # BUNDLE [OPTIONS]
    local bundle=$1 stage precision bad=0
    shift
    for stage in $stages; do
        for precision in fp16 bf16; do
            network "$bundle" "$stage" "$precision" "$(batch_of "$stage")" "$repeats" "$@" || bad=1
        done
    done
    return $bad
}

# whole_pipeline PRECISION [OPTIONS]: a study's whole way, as a worker takes it.
whole_pipeline() {
    local precision=$1
    shift
    "$build/bench/cpu/net_time" --precision "$precision" --plans "$work/plans-$precision.txt" "$@" \
        models/small pipeline >>"$work/pipeline.jsonl"
}

# beside_torch BUNDLE STAGE: PyTorch in a run of its own, on what C handed over.
beside_torch() {
    local bundle=$1 stage=$2 path=$work/handed
    shift 2
    "$build/bench/gpu/net_gpu" "$bundle" "$stage" --batch "$(batch_of "$stage")" \
        --plans "$work/plans-fp16.txt" --hand-over "$path" "$@" >/dev/null &&
        "$python" bench/gpu/torch_gpu.py "$bundle" "$stage" "$path" --device "$torch_device" \
            --precision "$torch_precision" --repeats "$repeats" --variants "$torch_variants" |
        sed -u "s|^{|{\"bundle\": \"$(basename "$bundle")\", |" >>"$work/torch.jsonl"
    local rc=$?
    rm -f "$path".*.safetensors
    return $rc
}

sanitize() {
    local tool program bad=0 sanitizer
    sanitizer=$(command -v compute-sanitizer || ls "$(dirname "$nvcc")/compute-sanitizer" \
        /usr/local/cuda/bin/compute-sanitizer 2>/dev/null | head -1)
    [ -n "$sanitizer" ] || { echo "no compute-sanitizer"; return 77; }
    for program in "$build"/tests/kernels/gpu_kernels_cuda_*; do
        [ -x "$program" ] && [ -f "$program" ] || continue
        for tool in memcheck racecheck; do
            HEPAR_TEST_EXACT=1 timeout -k 5 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$program" \
                >"$work/sanitizer-one.log" 2>&1
            local rc=$?
            [ $rc = 0 ] || { bad=1; cat "$work/sanitizer-one.log"; }
            printf '%s\t%s\t%s\t%s\n' "$tool" "$(basename "$program")" "$rc" \
                "$(grep 'SUMMARY' "$work/sanitizer-one.log" | sed 's/=*//' | head -1)" >>"$work/sanitizer.tsv"
        done
    done
    return $bad
}

export -f build_rooms compare_operators whole_pipeline network batch_of bundle_networks beside_torch sanitize
export build work root cudnn nvcc python torch_device torch_precision torch_variants stages repeats
run() { # functions in a step's own shell, so that its time can be limited
    local words
    printf -v words '%q ' "$@"
    echo "set -o pipefail; $words"
}

# ---- without a GPU ----------------------------------------------------------

if [ "$self_check" = yes ]; then
    # one thread each: it runs among other tests
    export OMP_NUM_THREADS=1 HEPAR_CUDA_MODULE=$build/tests/inference/hepar-host-gpu.so
    stages='liver detector ksf' repeats=2 torch_device=cpu torch_precision=fp32 torch_variants=eager
    echo '{"device": "stand-in", "cudnn": "none", "driver": "none", "cuda": "none"}' >"$work/versions.json"
    python3 bench/gpu/tiny_bundle.py "$work/tiny" || exit 2
    step pipeline 300 bash -c "$(run whole_pipeline fp32 --slices 24 --repeats 1)"
    step tiny-networks 400 bash -c "$(run bundle_networks "$work/tiny" --random --threads 1)"
    [ -n "$python" ] || python=python3
    if "$python" -c 'import torch, safetensors, yaml' 2>/dev/null; then
        "$python" bench/gpu/torch_gpu.py --rates --device cpu --size 64 >"$work/rates.jsonl"
        for stage in $stages; do
            step "torch-tiny-$stage" 200 bash -c "$(run beside_torch "$work/tiny" "$stage" --random)"
        done
    fi
    exit $failed
fi

# ---- with one ---------------------------------------------------------------

[ -z "$deps" ] || use_deps
look_for_gpu
leave_if_missing
choose_python
look_for_cudnn
leave_if_missing
write_versions
stages='liver detector keyslice ksf classify' repeats=50 torch_device=cuda torch_precision=fp16
torch_variants=eager,compile

step build 240 bash -c "$(run build_rooms)"
[ -x "$build/bench/gpu/net_gpu" ] || exit 1
step operators 150 bash -c "$(run compare_operators)"
for precision in fp16 bf16; do
    step "pipeline-$precision" 60 bash -c "$(run whole_pipeline "$precision" --device cuda)"
done
step small-networks 150 bash -c "$(run bundle_networks models/small)"
if [ -n "$python" ]; then
    step rates 60 bash -c "$(run "$python" bench/gpu/torch_gpu.py --rates) >'$work/rates.jsonl'"
fi
for stage in detector ksf classify liver keyslice; do
    stages=$stage step "paper-$stage" 150 bash -c "$(run bundle_networks models/paper --random)"
done
if [ -n "$python" ]; then
    for stage in detector ksf liver keyslice classify; do
        step "torch-paper-$stage" 200 bash -c "$(run beside_torch models/paper "$stage" --random)"
    done
fi
step sanitizer 200 bash -c "$(run sanitize)"
if [ -n "$python" ]; then
    for stage in detector liver keyslice ksf classify; do
        step "torch-small-$stage" 90 bash -c "$(run beside_torch models/small "$stage")"
    done
fi
echo "== $out"
exit $failed
