#!/usr/bin/env bash
# Tests and measures the trainer on a GPU.
#
#   deploy/libtorch/gpu-test.sh --programs   on a machine with Go: the programs below build/gpu-test, for a GPU machine without Go
#   deploy/libtorch/gpu-test.sh              on the GPU machine: builds libcgotorch.so against its libtorch or PyTorch
#                                            (build.sh says which), runs the tests that are made for a device, then measures
#                                            training steps beside its PyTorch, if python3 has one
#
# The GPU machine needs g++ and a libtorch built for CUDA (LIBTORCH=folder, or python3's torch). Without Go it needs
# build/gpu-test beside the checkout. ATELIER_TEST_DEVICE=cuda:N takes another GPU.
# MODELS, SIZES, BATCH, PRECISIONS choose what is measured.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/gpu-test
say() { echo "gpu-test: $*" >&2; }
die() { say "$*"; exit 1; }

if [ "${1:-}" = --programs ]; then
    command -v go >/dev/null || die "needs Go on the PATH"
    eval "$(deploy/libtorch/build.sh --env)"
    mkdir -p $out/gotorch
    go build -tags libtorch -trimpath -o $out/atelier-trainer ./worker/trainer
    go test -c -tags libtorch -trimpath -o $out/trainer.test ./worker/trainer
    CGO_ENABLED=0 go build -trimpath -o $out/bench-training ./deploy/bench/training
    CGO_ENABLED=0 go build -trimpath -o $out/atelier ./tuner
    cp -r --no-preserve=mode "$(go list -m -f '{{.Dir}}' github.com/wangkuiyi/gotorch)/cgotorch" $out/gotorch/
    say "built; carry the checkout with $out to the GPU machine and run deploy/libtorch/gpu-test.sh there"
    exit 0
fi
[ $# -eq 0 ] || die "unknown argument $1; see the head of this file"

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || ls /dev/nvidia[0-9]* 2>/dev/null || die "no NVIDIA GPU here; deploy/libtorch/gpu-check.sh builds for CUDA without one"
if command -v go >/dev/null; then
    "$0" --programs
elif [ ! -x $out/trainer.test ]; then
    die "neither Go nor $out/trainer.test is here; run deploy/libtorch/gpu-test.sh --programs on a machine with Go and carry $out"
fi
export GOTORCH=$PWD/$out/gotorch
deploy/libtorch/build.sh --where
deploy/libtorch/build.sh --where | grep -q '^cuda: yes' || die "the library would be built without CUDA; the line above says why"
deploy/libtorch/build.sh
export LD_LIBRARY_PATH=$PWD/build/libtorch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
cp -f build/libtorch/libcgotorch.so $out/ # beside the trainer, as in bin/

say "tests on ${ATELIER_TEST_DEVICE:-cuda:0}"
(cd worker/trainer && ATELIER_TRAINER=$OLDPWD/$out/atelier-trainer "$OLDPWD/$out/trainer.test" -test.run GPU -test.v -test.timeout 30m | grep -v '^=== RUN')

if ! python3 -c 'import torch, torchvision' 2>/dev/null; then
    say "python3 has no torch and torchvision: nothing to measure beside"
    exit 0
fi
say "training steps beside PyTorch"
$out/bench-training --bin $out --python "$(command -v python3)" --parts steps --device "${ATELIER_TEST_DEVICE:-cuda:0}" --journal $out/steps.jsonl \
    --models "${MODELS:-resnet18,resnet50}" --sizes "${SIZES:-224}" --batch "${BATCH:-128}" --precisions "${PRECISIONS:-fp32,bf16}" --rounds 3
