#!/usr/bin/env bash
# NVIDIA's driver library makes /dev/nvidiactl on a machine that has no NVIDIA hardware and no driver.
#
# Guess: cuInit() without a driver returns an error and changes nothing, so that /dev/nvidiactl tells machines
# with a GPU from others.
# Seen with Debian 13's libcuda1 550.163.01-2 (amd64), as root: cuInit(0) returns an error, and /dev/nvidiactl (character
# device 195:255) is there afterwards and stays. Whoever looks for that file to choose CUDA is wrong from the first program on
# that tried. /proc/driver/nvidia/version and /dev/nvidia0 stay absent.
#
# Root, because only root may make device files. Works in a mount namespace with a /dev of its own: the machine's stays as it is.
# Debian packages: libcuda1 (non-free), gcc. Output of the run of 2026-11-29:
#   cuInit: 100 (no device) or 999; before: absent; after: crw-rw-rw- c3:ff (195:255)
set -euo pipefail
[ "$(id -u)" -eq 0 ] || { echo "needs root"; exit 77; }
[ ! -e /proc/driver/nvidia/version ] || { echo "this machine has NVIDIA's driver: nothing to see"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{etc,lists/partial,cache/archives/partial,lib}
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" && $2 !~ /security/ {print $2; exit}')
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie non-free" >"$work/etc/sources.list"
apt=(apt-get -q -o Dir::Etc::sourcelist="$work/etc/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update >/dev/null
(cd "$work" && "${apt[@]}" download libcuda1=550.163.01-2 >/dev/null && dpkg -x libcuda1_*.deb lib)
library=$(find "$work/lib" -name 'libcuda.so.1' | head -1)
cat >"$work/init.c" <<'C'
#include <dlfcn.h>
#include <stdio.h>
int main(int n, char **v) {
  void *lib = dlopen(v[1], RTLD_NOW);
  if (!lib) { puts(dlerror()); return 1; }
  int (*init)(unsigned) = (int (*)(unsigned))dlsym(lib, "cuInit");
  printf("cuInit returns %d\n", init(0));
  return 0;
}
C
gcc -o "$work/init" "$work/init.c" -ldl
unshare -m bash -s "$work" "$library" <<'INSIDE'
set -euo pipefail
mount --make-rprivate /
mkdir "$1/null" && touch "$1/null/null" && mount --bind /dev/null "$1/null/null"
mount -t tmpfs -o mode=755 tmpfs /dev
touch /dev/null && mount --bind "$1/null/null" /dev/null
ls -l /dev/nvidia* >&2 2>/dev/null && { echo "there before"; exit 1; }
echo "before: no /dev/nvidiactl"
"$1/init" "$2"
if [ -c /dev/nvidiactl ]; then
  echo "after:  /dev/nvidiactl is a character device, $(stat -c '%A %t:%T' /dev/nvidiactl)"
  [ ! -e /dev/nvidia0 ] && [ ! -e /proc/driver/nvidia/version ] && exit 0
fi
echo "CHANGED: /dev/nvidiactl was not made, or more than it"
exit 1
INSIDE
