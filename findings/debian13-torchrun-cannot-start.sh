#!/usr/bin/env bash
# Debian 13's torchrun cannot start one process: its PyTorch is built without libuv and asks for it, whatever USE_LIBUV says.
#
# Guess: `python3 -m torch.distributed.run --standalone --nproc-per-node 1 script.py` of the distribution's own package runs
# the script; where a part is missing the documented switch USE_LIBUV=0 takes the other store, as it does for
# init_process_group.
# Seen with python3-torch 2.6.0+dfsg-7 (amd64): "use_libuv was requested but PyTorch was build without libuv support", with
# --standalone (rendezvous c10d) and with --master-addr (static), and the same with USE_LIBUV=0: the launcher's own stores do
# not look at it. Without the launcher init_process_group works once USE_LIBUV=0 is set, and fails in the same way otherwise.
# Scripts that were written for torchrun have to set RANK, WORLD_SIZE, MASTER_ADDR and
# MASTER_PORT by themselves there.
#
# Root, because the packages are unpacked into a folder of their own and run there in a chroot; 1 GB. Output of the run of
# 2026-11-30:
#   by hand, USE_LIBUV=1: refused
#   by hand, USE_LIBUV=0: rank 0 of 1
#   --standalone, USE_LIBUV=1: refused
#   --standalone, USE_LIBUV=0: refused
#   --master-addr, USE_LIBUV=1: refused
#   --master-addr, USE_LIBUV=0: refused
set -euo pipefail
[ "$(id -u)" -eq 0 ] || { echo "needs root"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{etc,lists/partial,cache/archives/partial,root/tmp,root/dev}
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" && $2 !~ /security/ {print $2; exit}')
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/etc/sources.list"
touch "$work/status" # nothing is installed there: everything that is needed comes along
apt=(apt-get -q -y -o Dir::Etc::sourcelist="$work/etc/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
  -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update >/dev/null
"${apt[@]}" install --download-only --no-install-recommends python3-torch=2.6.0+dfsg-7 >/dev/null
root=$work/root
for package in "$work"/cache/archives/*.deb; do dpkg -x "$package" "$root"; done
# What the packages' scripts would have set up.
for way in blas/libblas.so.3 lapack/liblapack.so.3; do
  there=$(find "$root/usr/lib" -path "*/$way*" | head -1)
  [ -z "$there" ] || ln -sf "${there#"$root"}" "$(dirname "$(dirname "$there")")/${way#*/}"
done
for name in lib lib64 bin; do [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"; done
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/null" c 1 3
ldconfig -r "$root"
cat >"$root/tmp/one.py" <<'PY'
import torch.distributed as dist
dist.init_process_group("gloo")
print("rank", dist.get_rank(), "of", dist.get_world_size(), flush=True)
PY
look() { # what came of it, in a word
  local name=$1 uv=$2
  shift 2
  env USE_LIBUV="$uv" GLOO_SOCKET_IFNAME=lo "$@" >"$work/out" 2>&1 || true
  if grep -q '^rank 0 of 1' "$work/out"; then echo "$name, USE_LIBUV=$uv: rank 0 of 1"
  elif grep -q 'use_libuv was requested' "$work/out"; then echo "$name, USE_LIBUV=$uv: refused"
  else echo "$name, USE_LIBUV=$uv: something else"; tail -3 "$work/out"; fi
}
python=(timeout 120 chroot "$root" /usr/bin/python3.13)
launcher=("${python[@]}" -m torch.distributed.run --nproc-per-node 1)
for uv in 1 0; do
  look "by hand" $uv env RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=2957$uv "${python[@]}" /tmp/one.py
done >"$work/seen"
for uv in 1 0; do look "--standalone" $uv "${launcher[@]}" --standalone /tmp/one.py; done >>"$work/seen"
for uv in 1 0; do look "--master-addr" $uv "${launcher[@]}" --master-addr 127.0.0.1 --master-port 2958$uv /tmp/one.py; done >>"$work/seen"
cat "$work/seen"
diff - "$work/seen" <<'SEEN' || { echo "DIFFERENT NOW"; exit 1; }
by hand, USE_LIBUV=1: refused
by hand, USE_LIBUV=0: rank 0 of 1
--standalone, USE_LIBUV=1: refused
--standalone, USE_LIBUV=0: refused
--master-addr, USE_LIBUV=1: refused
--master-addr, USE_LIBUV=0: refused
SEEN
