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
# LIBTORCH=folder   a libtorch, or the torch folder of a Python wheel; default: Debian's, /opt/libtorch,
#                   /usr/local/libtorch or python3's; where there is a GPU the first built for CUDA
# CUDA_HOME=folder  the CUDA runtime's headers and library, where they do not lie beside the libtorch
# GOTORCH=folder    gotorch's sources, on a machine without Go; default: the module cache
# ATELIER_GPU=1     choose as on a machine with a GPU
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
# The places where one may be, best first: Debian's package, an unpacked official
# archive, the torch of the python3 on the PATH. A machine with an NVIDIA GPU takes
# the first one built for CUDA, any other the first there is.
headers() { # of the libtorch folder $1; nothing where it holds none
    [ -e "$1/include/torch/csrc/api/include/torch/torch.h" ] && [ -e "$1/lib/libtorch.so" ]
}
debian_lib() {
    [ -e /usr/include/torch/csrc/api/include/torch/torch.h ] || return 1
    for d in /usr/lib/"$(uname -m)"-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        if [ -e "$d/libtorch.so" ]; then echo "$d"; return; fi
    done
    return 1
}
wheel() { # the torch folder of python3, found without importing it
    command -v python3 >/dev/null || return 1
    python3 -c 'import importlib.util as u; s = u.find_spec("torch"); print(list(s.submodule_search_locations)[0])' 2>/dev/null
}
# /dev/nvidiactl says nothing: root's first call into the driver's library makes it on machines without a GPU.
gpu_here() { [ -n "${ATELIER_GPU:-}" ] || [ -e /proc/driver/nvidia/version ] || ls /dev/nvidia[0-9]* >/dev/null 2>&1; }

torch=
if [ -n "${LIBTORCH:-}" ]; then
    torch=$(cd "$LIBTORCH" 2>/dev/null && pwd) || die "LIBTORCH=$LIBTORCH is not a folder"
    headers "$torch" ||
        die "LIBTORCH=$LIBTORCH holds no include/torch and lib/libtorch.so; give the folder of a libtorch or of a Python wheel (python3 -c 'import torch; print(torch.__path__[0])')"
    chosen="LIBTORCH says so"
else
    candidates= # lines: library folder, include folder, torch folder (empty for Debian's)
    if lib=$(debian_lib); then candidates="$lib /usr/include "; fi
    for d in /opt/libtorch /usr/local/libtorch "$(wheel || true)"; do
        if [ -n "$d" ] && headers "$d"; then candidates="$candidates
$d/lib $d/include $d"; fi
    done
    [ -n "$candidates" ] || die "no libtorch found; install it (apt-get install libtorch-dev; libtorch-cuda-dev for NVIDIA GPUs, Debian 13's contrib) or set LIBTORCH=folder"
    first=$(echo "$candidates" | sed '/^$/d' | head -1)
    chosen="the first found"
    if gpu_here; then
        with=$(echo "$candidates" | while read -r l i t; do [ -n "$l" ] && [ -e "$l/libtorch_cuda.so" ] && echo "$l $i $t"; done | head -1 || true)
        if [ -n "$with" ]; then first=$with; chosen="this machine has a GPU and it is built for CUDA"; fi
    fi
    read -r lib include torch <<END
$first
END
fi
if [ -n "$torch" ]; then include=$torch/include lib=$torch/lib; fi

# --- CUDA ---------------------------------------------------------------------
# What links: libtorch_cuda, and the CUDA runtime that gotorch's stream calls name.
# Folders beside the libtorch come first: a toolkit of another version may lie in /usr/local/cuda.
rpath='$ORIGIN'
[ -z "$torch" ] || rpath="$rpath:$lib"
cuda=no cuda_flags= cudart=
if [ ! -e "$lib/libtorch_cuda.so" ]; then
    why="$lib has no libtorch_cuda.so: it is a libtorch for CPUs"
    if gpu_here; then why="$why, although this machine has a GPU; install libtorch-cuda-dev (Debian 13, contrib) or set LIBTORCH=folder of one built for CUDA"; fi
else
    for d in "${CUDA_HOME:+$CUDA_HOME/include}" ${torch:+"$torch"/include "$torch"/../nvidia/cuda_runtime/include "$torch"/../nvidia/cu[0-9]*/include} /usr/include /usr/local/cuda/include; do
        if [ -n "$d" ] && [ -e "$d/cuda_runtime_api.h" ]; then cuda_include=$d; break; fi
    done
    # The wheels have libcudart.so.N alone, the archives libcudart-HASH.so.N.
    for d in ${torch:+"$lib" "$torch"/../nvidia/cuda_runtime/lib "$torch"/../nvidia/cu[0-9]*/lib} "$lib" "${CUDA_HOME:+$CUDA_HOME/lib64}" /usr/local/cuda/lib64; do
        for f in "$d"/libcudart.so "$d"/libcudart.so.[0-9]* "$d"/libcudart-*.so*; do
            if [ -n "$d" ] && [ -e "$f" ]; then cudart=$f; break 2; fi
        done
    done
    if [ -z "${cuda_include:-}" ]; then
        why="$lib has libtorch_cuda.so, but cuda_runtime_api.h is nowhere; install the CUDA runtime's headers (Debian: nvidia-cuda-dev, wheels: nvidia-cuda-runtime) or set CUDA_HOME"
    elif [ -z "$cudart" ]; then
        why="$lib has libtorch_cuda.so, but libcudart.so is nowhere; install the CUDA runtime (Debian: nvidia-cuda-dev, wheels: nvidia-cuda-runtime) or set CUDA_HOME"
    else
        cuda=yes
        why="libtorch_cuda.so in $lib, headers in $cuda_include, $(basename "$cudart")"
        # The system's own folders may not be named again: their order among the C++ headers matters.
        [ "$cuda_include" = /usr/include ] || cuda_flags="-I$cuda_include"
    fi
    if [ -n "$torch" ]; then # the wheels keep cuDNN, cuBLAS and friends in folders of their own
        for d in "$torch"/../nvidia/*/lib; do
            [ -d "$d" ] && rpath="$rpath:$(cd "$d" && pwd)"
        done
    fi
fi

# A libtorch built with the old C++ ABI shows no __cxx11 names in libc10.
abi=1
if command -v nm >/dev/null && ! nm -D "$lib/libc10.so" | grep -q __cxx11; then abi=0; fi

# The C++ that its headers ask for: 17, or 20 where they refuse 17 (PyTorch 2.14 does).
std=c++17
if grep -hqs '__cplusplus < 202002L' "$include"/torch/csrc/api/include/torch/all.h "$include"/c10/util/C++*.h "$include"/c10/macros/Macros.h "$include"/torch/headeronly/macros/Macros.h; then std=c++20; fi

if [ "${1:-}" = --where ]; then
    echo "include=$include lib=$lib abi=$abi c++=$std"
    echo "taken because: $chosen"
    echo "cuda: $cuda ($why)"
    exit 0
fi

# Where libraries built on this machine are kept for its other checkouts, by key; empty = nowhere.
shelf=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
shelf=${shelf:+$shelf/atelier/libtorch}

# --- What goes in -------------------------------------------------------------
gotorch=${GOTORCH:-}
if [ -z "$gotorch" ]; then
    gotorch=$(go list -m -f '{{.Dir}}' github.com/wangkuiyi/gotorch)
fi
if [ -z "$gotorch" ]; then
    go mod download github.com/wangkuiyi/gotorch
    gotorch=$(go list -m -f '{{.Dir}}' github.com/wangkuiyi/gotorch)
fi
[ -d "$gotorch/cgotorch" ] || die "gotorch's C++ sources are not in '$gotorch'; run: go mod download github.com/wangkuiyi/gotorch"

# A square root that may set errno keeps the compiler from vectorising the loop around it: Adam is three times as fast without.
flags="-std=$std -O2 -fno-math-errno -fPIC -w -D_GLIBCXX_USE_CXX11_ABI=$abi -I$gotorch -I$native -I$include -I$include/torch/csrc/api/include"
[ $cuda = no ] || flags="$flags -DWITH_CUDA $cuda_flags"
flags="$flags ${CXXFLAGS:-}"
libs="-L$lib -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10"
[ $cuda = no ] || libs="$libs -ltorch_cuda -lc10_cuda -L$(dirname "$cudart") -l:$(basename "$cudart")"
libs="$libs -Wl,--as-needed -ldl"

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
    say "building libcgotorch.so against $lib ($chosen)"
    say "cuda: $cuda ($why)"
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
