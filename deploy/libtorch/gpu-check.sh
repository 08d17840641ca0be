#!/usr/bin/env bash
# Builds the trainer for CUDA on a machine that has no GPU, and runs what needs no device.
#
#   deploy/libtorch/gpu-check.sh [go test flags]
#
# In a Debian 13 of its own below build/gpu-check (7 GB; made once, 4 minutes) with libtorch-cuda-dev
# from contrib and CUDA from non-free: compiles and links libcgotorch.so and atelier-trainer against them, as
# build.sh does on a GPU machine, looks that the library names libtorch_cuda and the CUDA runtime, and runs the
# trainer's tests on the CPU, a whole training among them. Debian's nvidia-cudnn downloads cuDNN when it is
# installed; here a library of the same name stands in for it, whose functions all fail: without a device none
# is called.
#
# Needs root, debootstrap and Go. CHECK=folder keeps the Debian elsewhere, MIRROR=address takes another mirror than debootstrap does.
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$(pwd)
check=${CHECK:-$source/build/gpu-check}
say() { echo "gpu-check: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" -eq 0 ] || die "needs root: it installs packages into a Debian 13 below $check"
deploy/packages.sh debootstrap
go=$(command -v go) || die "needs Go on the PATH"
goroot=$("$go" env GOROOT)
modules=$("$go" env GOMODCACHE)
"$go" mod download

root=$check/debian13
if [ ! -e "$check/installed" ]; then
    mkdir -p "$check"
    say "making a Debian 13 in $root"
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase --components=main,contrib,non-free trixie "$root" ${MIRROR:+"$MIRROR"} >"$check/debootstrap.log" 2>&1 ||
        { tail -5 "$check/debootstrap.log" >&2; die "debootstrap failed; $check/debootstrap.log"; }
    cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
    mkdir -p "$root/standin/DEBIAN"
    printf 'Package: nvidia-cudnn\nVersion: 99\nArchitecture: amd64\nMaintainer: atelier <root@localhost>\nDescription: stands in for cuDNN, which the real package downloads\n' >"$root/standin/DEBIAN/control"
    chroot "$root" dpkg-deb -b /standin /standin.deb >/dev/null
    say "installing libtorch-cuda-dev and what it needs (1.7 GB to fetch)"
    if ! { chroot "$root" apt-get update && DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y --no-install-recommends \
        g++ ca-certificates /standin.deb libtorch-cuda-dev nvidia-cuda-dev && chroot "$root" apt-get clean; } >"$check/apt.log" 2>&1; then
        tail -5 "$check/apt.log" >&2
        die "apt-get failed; $check/apt.log"
    fi
    touch "$check/installed"
fi

# Everything below happens in a mount namespace of its own: the mounts end with it.
export source root goroot modules check
exec unshare -m bash -s -- "$@" <<'INSIDE'
set -euo pipefail
mount --make-rprivate /
mkdir -p "$root/source" "$root/go" "$root/modules" "$root/cache" "$root/build" "$root/dev" "$root/proc"
mount --bind "$source" "$root/source"
mkdir -p "$root/source/build"
mount --bind "$root/build" "$root/source/build" # its libcgotorch.so is not this machine's
mkdir -p "$root/build/bin" "$root/source/bin"
mount --bind "$root/build/bin" "$root/source/bin"
mount --bind "$goroot" "$root/go"
mount --bind "$modules" "$root/modules"
# Devices of its own: the driver's library makes /dev/nvidiactl where there is none.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for d in null zero full random urandom tty; do touch "$root/dev/$d" && mount --bind /dev/$d "$root/dev/$d"; done
mkdir "$root/dev/shm" && ln -s /proc/self/fd "$root/dev/fd"
mount -t proc proc "$root/proc"
cat >"$root/run.sh" <<'RUN'
set -euo pipefail
export PATH=/go/bin:$PATH GOMODCACHE=/modules GOCACHE=/cache GOFLAGS="-mod=mod -buildvcs=false" GOPROXY=off HOME=/root TMPDIR=/tmp XDG_CACHE_HOME=/cache/shelf
cd /source
lib=/usr/lib/$(uname -m)-linux-gnu
# cuDNN's stand-in: every function that libtorch_cuda names, failing.
if [ ! -e $lib/libcudnn.so.9 ]; then
    nm -D --undefined-only $lib/libtorch_cuda.so | awk '$2 ~ /^cudnn/ {sub(/@.*/, "", $2); print "int " $2 "(void) { return 1; }"}' | sort -u >/tmp/cudnn.c
    echo 'libcudnn.so.9 { global: *; };' >/tmp/cudnn.map # the version its symbols carry
    gcc -shared -fPIC -Wl,-soname,libcudnn.so.9 -Wl,--version-script=/tmp/cudnn.map -o $lib/libcudnn.so.9 /tmp/cudnn.c
    ldconfig
fi
deploy/libtorch/build.sh --where
deploy/libtorch/build.sh --where | grep -q '^cuda: yes' || { echo "gpu-check: build.sh does not find CUDA" >&2; exit 1; }
deploy/libtorch/build.sh --trainer
for need in libtorch_cuda.so libc10_cuda.so libcudart.so; do
    readelf -d build/libtorch/libcgotorch.so | grep -q "NEEDED.*$need" || { echo "gpu-check: libcgotorch.so does not name $need" >&2; exit 1; }
done
ldd bin/atelier-trainer build/libtorch/libcgotorch.so | grep -i 'not found' && { echo "gpu-check: libraries are missing" >&2; exit 1; }
eval "$(deploy/libtorch/build.sh --env)"
if [ $# -gt 0 ]; then go test -tags libtorch "$@"; else go test -tags libtorch -timeout 60m ./worker/trainer/...; fi
echo "gpu-check: libcgotorch.so and atelier-trainer are built for CUDA, and what needs no device passes"
RUN
exec chroot "$root" bash /run.sh "$@"
INSIDE
