#!/bin/sh
# Builds libcgotorch.so: gotorch's C++ sources and our torchx extension, in one
# shared library, the only thing atelier-trainer links against.
#
#   deploy/libtorch/build.sh             build the library (instant when nothing changed)
#   deploy/libtorch/build.sh --env       build it, then print shell lines with the Go environment:
#                                        eval "$(deploy/libtorch/build.sh --env)"; go test -tags libtorch ./worker/trainer/...
#   deploy/libtorch/build.sh --trainer   build it and bin/atelier-trainer, with the library beside it
#   deploy/libtorch/build.sh --where     print what it would build against, build nothing
#
# LIBTORCH=folder   a libtorch, or the torch folder of a Python wheel; default: Debian's libtorch-dev
# CXX, CXXFLAGS     compiler and further flags
#
# DESIGN.md beside this file says why it is built this way.
set -eu

say() { echo "libtorch: $*" >&2; }
die() { say "$*"; exit 1; }

cd "$(dirname "$0")/../.."
root=$(pwd)
out=$root/build/libtorch
native=$root/worker/trainer/torchx
cxx=${CXX:-g++}

# --- Which libtorch -----------------------------------------------------------
rpath='$ORIGIN'
with_cuda=no
cuda_include=
if [ -n "${LIBTORCH:-}" ]; then
    torch=$(cd "$LIBTORCH" 2>/dev/null && pwd) || die "LIBTORCH=$LIBTORCH is not a folder"
    include=$torch/include
    lib=$torch/lib
    [ -e "$include/torch/csrc/api/include/torch/torch.h" ] && [ -e "$lib/libtorch.so" ] ||
        die "LIBTORCH=$LIBTORCH holds no include/torch and lib/libtorch.so; give the folder of a libtorch or of a Python wheel (python3 -c 'import torch; print(torch.__path__[0])')"
    rpath="$rpath:$lib"
    if [ -e "$lib/libtorch_cuda.so" ]; then
        with_cuda=libraries
        # gotorch's stream calls need the CUDA runtime's headers: a toolkit's or those of the wheels.
        for d in "${CUDA_HOME:-/usr/local/cuda}/include" "$torch"/../nvidia/cuda_runtime/include "$torch"/../nvidia/cu[0-9]*/include; do
            if [ -e "$d/cuda_runtime_api.h" ]; then with_cuda=full; cuda_include=$d; break; fi
        done
        # The wheels keep cuDNN, cuBLAS and friends in folders of their own.
        for d in "$torch"/../nvidia/*/lib; do
            [ -d "$d" ] && rpath="$rpath:$(cd "$d" && pwd)"
        done
    fi
else
    include=/usr/include
    lib=
    for d in /usr/lib/"$(uname -m)"-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        if [ -e "$d/libtorch.so" ]; then lib=$d; break; fi
    done
    [ -n "$lib" ] && [ -e "$include/torch/csrc/api/include/torch/torch.h" ] ||
        die "no libtorch found; install it (apt-get install libtorch-dev) or set LIBTORCH=folder"
fi

# A libtorch built with the old C++ ABI shows no __cxx11 names in libc10.
abi=1
if command -v nm >/dev/null && ! nm -D "$lib/libc10.so" | grep -q __cxx11; then abi=0; fi

if [ "${1:-}" = --where ]; then
    echo "include=$include lib=$lib cuda=$with_cuda abi=$abi"
    exit 0
fi

# Where libraries built on this machine are kept for its other checkouts, by key; empty = nowhere.
shelf=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
shelf=${shelf:+$shelf/atelier/libtorch}

# --- What goes in -------------------------------------------------------------
gotorch=$(go list -m -f '{{.Dir}}' github.com/wangkuiyi/gotorch)
if [ -z "$gotorch" ]; then
    go mod download github.com/wangkuiyi/gotorch
    gotorch=$(go list -m -f '{{.Dir}}' github.com/wangkuiyi/gotorch)
fi
[ -d "$gotorch/cgotorch" ] || die "gotorch's C++ sources are not in '$gotorch'; run: go mod download github.com/wangkuiyi/gotorch"

flags="-std=c++17 -O2 -fPIC -w -D_GLIBCXX_USE_CXX11_ABI=$abi -I$gotorch -I$native -I$include -I$include/torch/csrc/api/include"
[ $with_cuda = full ] && flags="$flags -DWITH_CUDA -isystem $cuda_include"
flags="$flags ${CXXFLAGS:-}"
libs="-L$lib -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10"
[ $with_cuda = no ] || libs="$libs -ltorch_cuda -lc10_cuda"
libs="$libs -Wl,--as-needed"

# Everything that decides the result: sources, flags, compiler, this script, the libraries found.
key=$( {
    cat "$gotorch"/cgotorch/*.cc "$gotorch"/cgotorch/*.h "$native"/torchx.h "$native"/native/*.cc "$native"/native/*.h "$0" 2>/dev/null || true
    echo "$flags $libs $rpath" | sed "s|$root|.|g" # the same in every checkout
    "$cxx" --version
    ls -lL --time-style=full-iso "$lib"/libtorch*.so "$lib"/libc10*.so
} | sha256sum | cut -c1-32)

# --- Build --------------------------------------------------------------------
# gotorch's cgo lines name c10, torch and torch_cpu. Empty archives of these names, found first, keep
# the Go program free of them: the same atelier-trainer runs with any libcgotorch.so.
link_archives() {
    mkdir -p "$out/link"
    for n in c10 torch torch_cpu; do rm -f "$out/link/lib$n.a"; ar rcs "$out/link/lib$n.a"; done
}

build() {
    mkdir -p "$out"
    exec 9>"$out/.lock"
    command -v flock >/dev/null && flock 9 # two makes at once: the second finds the first's result
    if [ -e "$out/libcgotorch.so" ] && [ "$(cat "$out/key" 2>/dev/null)" = "$key" ]; then return; fi
    if [ -n "$shelf" ] && [ -e "$shelf/$key.so" ]; then
        say "taking libcgotorch.so as built before, $shelf/$key.so"
        link_archives
        cp "$shelf/$key.so" "$out/.libcgotorch.so" && mv "$out/.libcgotorch.so" "$out/libcgotorch.so"
        echo "$key" >"$out/key"
        return
    fi
    say "building libcgotorch.so against $lib (cuda: $with_cuda)"
    started=$(date +%s)
    work=$out/work
    rm -rf "$work" && mkdir -p "$work"
    # torch.h costs far more than our code: each half is compiled as one unit, side by side.
    for f in "$gotorch"/cgotorch/*.cc; do echo "#include \"$f\""; done >"$work/gotorch.cc"
    # The loops of kernels.cc need no libtorch but all of the optimiser.
    for f in "$native"/native/*.cc; do
        case $f in */kernels.cc) ;; *) echo "#include \"$f\"" ;; esac
    done >"$work/torchx.cc"
    "$cxx" $flags -c "$work/gotorch.cc" -o "$work/gotorch.o" & first=$!
    "$cxx" $flags -O3 -Wno-psabi -c "$native/native/kernels.cc" -o "$work/kernels.o" & second=$!
    # at::parallel_for is a template: without OpenMP here its body would run on one thread.
    "$cxx" $flags -fopenmp -c "$work/torchx.cc" -o "$work/torchx.o" || { wait $first $second || true; die "torchx did not compile"; }
    wait $first || die "gotorch's sources did not compile against this libtorch"
    wait $second || die "torchx's loops did not compile"
    "$cxx" -shared -o "$work/libcgotorch.so" "$work/gotorch.o" "$work/torchx.o" "$work/kernels.o" $libs "-Wl,-rpath,$rpath" -Wl,-z,defs -fopenmp
    link_archives
    mv "$work/libcgotorch.so" "$out/libcgotorch.so"
    rm -rf "$work"
    echo "$key" >"$out/key"
    # Other checkouts on this machine take it from here; the eight newest stay. It is no loss if that fails.
    if [ -n "$shelf" ] && mkdir -p "$shelf" && cp "$out/libcgotorch.so" "$shelf/.$key.$$" && mv "$shelf/.$key.$$" "$shelf/$key.so"; then
        ls -t "$shelf"/*.so | tail -n +9 | while read -r old; do rm -f "$old"; done
    fi
    say "built in $(($(date +%s) - started)) s"
}
( build ) || exit 1

env_lines() {
    # -L folders of the environment come before gotorch's own, which point into the module cache.
    echo "export CGO_ENABLED=1"
    echo "export CGO_LDFLAGS='-L$out -L$out/link -Wl,--as-needed -Wl,-rpath,\$ORIGIN -Wl,-rpath,\$ORIGIN/../build/libtorch'"
    echo "export LD_LIBRARY_PATH='$out'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
}

case "${1:-}" in
--env) env_lines ;;
--trainer)
    eval "$(env_lines)"
    mkdir -p bin
    go build -tags libtorch -o bin/atelier-trainer ./worker/trainer
    # A new file each time: a running trainer keeps the library it has mapped.
    cmp -s "$out/libcgotorch.so" bin/libcgotorch.so || { cp "$out/libcgotorch.so" bin/.libcgotorch.so && mv bin/.libcgotorch.so bin/libcgotorch.so; }
    ;;
"") ;;
*) die "unknown argument $1; see the head of deploy/libtorch/build.sh" ;;
esac
