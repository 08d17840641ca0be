"""Cleanup and packing of an image folder as Python programs do it: Pillow, perceptual hashes as the imagehash package makes them, numpy, two processes.

usage: peer.py FOLDER QUARANTINE PACKED SIZE PROCESSES
Moves files that do not decode, byte copies and near-duplicates (also mirrored ones) into the quarantine, then packs the rest as uint8 squares.
Prints one line of JSON: what went and what was packed. Less than `atelier data cleanup` does: no crops are searched for, no pictures compared.
"""
import hashlib
import io
import json
import os
import shutil
import sys
from multiprocessing import Pool

import numpy as np
from PIL import Image
from scipy.fftpack import dct

NEAR = 6  # bits of 64: as people set it for phash


def bits(grey):
    pixels = np.asarray(grey.resize((32, 32), Image.LANCZOS))
    low = dct(dct(pixels, axis=0), axis=1)[:8, :8]
    return np.packbits(low > np.median(low)).view(np.uint64)[0]


def look(path):
    with open(path, "rb") as f:
        data = f.read()
    try:
        with Image.open(io.BytesIO(data)) as im:
            im.load()
            grey = im.convert("L")
            return hashlib.sha256(data).digest(), im.size, bits(grey), bits(grey.transpose(Image.FLIP_LEFT_RIGHT))
    except Exception:
        return None


def square(path, size):
    with Image.open(path) as im:
        im = im.convert("RGB")
        w, h = im.size
        if w < h:
            im = im.resize((size, int(size * h / w)), Image.BILINEAR)
        else:
            im = im.resize((int(size * w / h), size), Image.BILINEAR)
        left, top = round((im.size[0] - size) / 2), round((im.size[1] - size) / 2)
        return np.asarray(im.crop((left, top, left + size, top + size)))


def fill(job):
    first, paths, packed, count, size = job
    out = np.lib.format.open_memmap(packed, mode="r+")
    for i, path in enumerate(paths):
        out[first + i] = square(path, size)


def near(hashes, mirrors, table):
    """All pairs of which the hashes, or a hash and a mirror's hash, differ in few bits."""
    for i in range(len(hashes) - 1):
        for other in (hashes[i + 1:], mirrors[i + 1:]):
            words = (other ^ hashes[i]).view(np.uint16).reshape(-1, 4)
            distance = table[words].sum(axis=1, dtype=np.uint8)
            for k in np.flatnonzero(distance <= NEAR):
                yield i, i + 1 + k


def main():
    folder, quarantine, packed, size, processes = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    paths = sorted(os.path.join(d, f) for d, _, names in os.walk(folder) for f in names)
    with Pool(processes) as pool:
        found = pool.map(look, paths, chunksize=64)
        gone, seen, kept = {}, {}, []
        for i, f in enumerate(found):
            if f is None:
                gone[i] = "broken"
            elif f[0] in seen:
                gone[i] = "copy"
            else:
                seen[f[0]] = i
                kept.append(i)
        table = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)
        hashes = np.array([found[i][2] for i in kept], np.uint64)
        mirrors = np.array([found[i][3] for i in kept], np.uint64)
        for a, b in near(hashes, mirrors, table):
            a, b = kept[a], kept[b]
            if a in gone or b in gone:
                continue
            small = a if found[a][1] < found[b][1] else b
            gone[small] = "near"
        for i in gone:
            to = os.path.join(quarantine, os.path.relpath(paths[i], folder))
            os.makedirs(os.path.dirname(to), exist_ok=True)
            shutil.move(paths[i], to)
        left = [p for i, p in enumerate(paths) if i not in gone]
        np.lib.format.open_memmap(packed, mode="w+", dtype=np.uint8, shape=(len(left), size, size, 3)).flush()
        jobs = [(i, left[i:i + 64], packed, len(left), size) for i in range(0, len(left), 64)]
        pool.map(fill, jobs, chunksize=1)
    reasons = list(gone.values())
    print(json.dumps({"broken": reasons.count("broken"), "copy": reasons.count("copy"), "near": reasons.count("near"), "packed": len(left)}))


if __name__ == "__main__":
    main()
