#!/usr/bin/env bash
# An all-reduce with MAX or MIN over Gloo loses a NaN, or keeps it, by the place of the element and the rank that had it.
#
# Guess: all_reduce(MAX) is the elementwise torch.maximum of the ranks' tensors, which hands a NaN on; so one MAX over the
# losses, or a flag computed from them, shows every rank that some rank diverged.
# Seen with Debian 12's python3-torch 1.13.1+dfsg-4 and libgloo0 0.0~git20220518.5b14351-3: of N ranks, each with a NaN in the
# element of its own number and 1 elsewhere, the result has a NaN in element 0 alone, for MAX and MIN, with 2 and with 4 ranks.
# SUM has one in every element, and so has torch.maximum. Divergence has to be noticed with a SUM, or with a flag of integers.
#
# Root, because the packages are unpacked into a folder of their own and run there in a chroot; 600 MB. Output of the run of
# 2026-11-30:
#   maximum  [nan, nan]
#   2 ranks: SUM [nan, nan]  MAX [nan, 1.0]  MIN [nan, 1.0]
#   4 ranks: SUM [nan, nan, nan, nan]  MAX [nan, 1.0, 1.0, 1.0]  MIN [nan, 1.0, 1.0, 1.0]
set -euo pipefail
[ "$(id -u)" -eq 0 ] || { echo "needs root"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{etc,lists/partial,cache/archives/partial,debian/tmp,debian/dev}
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" && $2 !~ /security/ {print $2; exit}')
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$work/etc/sources.list"
touch "$work/status" # nothing is installed there: everything that is needed comes along
apt=(apt-get -q -y -o Dir::Etc::sourcelist="$work/etc/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
  -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update >/dev/null
"${apt[@]}" install --download-only --no-install-recommends python3-torch=1.13.1+dfsg-4 libgloo0=0.0~git20220518.5b14351-3 >/dev/null
for package in "$work"/cache/archives/*.deb; do dpkg -x "$package" "$work/debian"; done
# What the packages' scripts would have set up.
for way in blas/libblas.so.3 lapack/liblapack.so.3; do
  there=$(find "$work/debian/usr/lib" -path "*/$way*" | head -1)
  [ -z "$there" ] || ln -sf "${there#"$work/debian"}" "$(dirname "$(dirname "$there")")/${way#*/}"
done
mknod -m 666 "$work/debian/dev/urandom" c 1 9
mknod -m 666 "$work/debian/dev/null" c 1 3
cat >"$work/debian/tmp/nan.py" <<'PY'
import os, sys
import torch, torch.distributed as dist
rank, size = int(sys.argv[1]), int(sys.argv[2])
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
dist.init_process_group("gloo", init_method="file:///tmp/store%d" % size, rank=rank, world_size=size)
line = []
for op in ("SUM", "MAX", "MIN"):
    t = torch.ones(size)
    t[rank] = float("nan")
    dist.all_reduce(t, op=getattr(dist.ReduceOp, op))
    line.append("%s %s" % (op, t.tolist()))
if rank == 0:
    a = torch.tensor([float("nan"), 1.0])
    if size == 2:
        print("maximum ", torch.maximum(a, a.flip(0)).tolist())
    print("%d ranks: %s" % (size, "  ".join(line)))
PY
ldconfig -r "$work/debian"
for size in 2 4; do
  for rank in $(seq 0 $((size - 1))); do chroot "$work/debian" /usr/bin/python3.11 /tmp/nan.py "$rank" "$size" & done >>"$work/seen" 2>>"$work/messages"
  wait
done
cat "$work/seen"
diff - "$work/seen" <<'SEEN' || { echo "DIFFERENT NOW"; exit 1; }
maximum  [nan, nan]
2 ranks: SUM [nan, nan]  MAX [nan, 1.0]  MIN [nan, 1.0]
4 ranks: SUM [nan, nan, nan, nan]  MAX [nan, 1.0, 1.0, 1.0]  MIN [nan, 1.0, 1.0, 1.0]
SEEN
