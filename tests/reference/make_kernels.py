#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cuts tests/data/kernels.safetensors out of a golden folder (torch 2.11, bitsandbytes
95f9af3): what the tests of random numbers, quantisers and 8-bit Adam check where no golden
folder is at hand. Usage: make_kernels.py GOLDEN_DIR OUTPUT"""
import json
import struct
import sys

SIZE = {"F32": 4, "I32": 4, "BF16": 2, "F16": 2, "U8": 1}


def read(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(n))
        data = f.read()
    header.pop("__metadata__", None)
    return {k: (v["dtype"], data[slice(*v["data_offsets"])]) for k, v in header.items()}


def write(path, tensors):
    header, data = {}, b""
    # Widest elements first, so that all are aligned.
    for k, (dtype, raw) in sorted(tensors.items(), key=lambda t: (-SIZE[t[1][0]], t[0])):
        header[k] = {"dtype": dtype, "shape": [len(raw) // SIZE[dtype]],
                     "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    golden = read(sys.argv[1] + "/golden.safetensors")
    out = {}

    def take(key, first=None, to=None):
        dtype, raw = golden[key]
        out[to or key] = (dtype, raw if first is None else raw[: first * SIZE[dtype]])

    for key in golden:
        if key.startswith(("rand.", "randn_", "randperm.")):
            take(key)
        elif key.startswith("randn.") and not key.endswith(".4096"):
            take(key)
        elif key.startswith(("nf4.0.", "adam8.map_")) or key == "nf4.code":
            take(key)
    # The first blocks of 64 hold the hard cases: zeros, a tiny block, an outlier.
    take("nf4.3.x", 640, "nf4.9.x")
    take("nf4.3.plain.absmax", 10, "nf4.9.plain.absmax")
    take("nf4.3.plain.packed", 320, "nf4.9.plain.packed")
    take("nf4.3.plain.dequant", 640, "nf4.9.plain.dequant")
    # Blocks of 256 do not know of each other.
    for i in range(6):
        take(f"adam8.4096.p{i}", 512, f"adam8.512.p{i}")
        if i < 5:
            take(f"adam8.4096.g{i}", 512, f"adam8.512.g{i}")
    for state in ("state1", "state2"):
        take(f"adam8.4096.state.{state}", 512, f"adam8.512.state.{state}")
    for absmax in ("absmax1", "absmax2"):
        take(f"adam8.4096.state.{absmax}", 2, f"adam8.512.state.{absmax}")
    write(sys.argv[2], out)


if __name__ == "__main__":
    main()
