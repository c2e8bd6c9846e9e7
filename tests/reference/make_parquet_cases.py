#!/usr/bin/env python3
# tests/reference/make_parquet_cases.py: small parquet files as pyarrow and pandas write them,
# and what is in them. SPDX-License-Identifier: LGPL-2.1-or-later
#
# make_parquet_cases.py FOLDER writes FOLDER/NAME.parquet and FOLDER/NAME.json (NAME up to the
# first dash: all table-*.parquet hold the same), where the JSON is {column: [value of row 0,
# ...]}: bytes in hexadecimal, null as null, NaN and null within a list as "nan".
# Needs pandas, pyarrow and numpy; duckdb and polars add files of their own. "--old" writes
# only what pyarrow before 15 writes otherwise: pages that end within a row. "--seeds" writes
# files of a few hundred bytes for tests/fuzz/seeds-parquet. What is checked in was written with
# the versions that versions*.txt beside the files name.
import json
import math
import pathlib
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

old = sys.argv[1] == "--old"
out = pathlib.Path(sys.argv[-1])
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(7)


def lists(n, longest, values=None):
    """Lists of every kind: null, empty, with null elements."""
    rows = []
    for i in range(n):
        if i % 11 == 3:
            rows.append(None)
            continue
        length = 0 if i % 7 == 2 else int(rng.integers(1, longest))
        row = [float(v) for v in (rng.standard_normal(length) if values is None
                                  else rng.choice(values, length))]
        if i % 5 == 4 and row:
            row[len(row) // 2] = None
        rows.append(row)
    return rows


def base(n=40, longest=14):
    words = ["apple", "a blue apple", "", "\u00e9t\u00e9 \U0001f34e"]
    ints = [None if i % 9 == 4 else (i - 20) * 77777777 % 2**31 for i in range(n)]
    return {
        "text": pa.array([None if i % 8 == 5 else words[i % 4] + str(i // 4) for i in range(n)]),
        "image": pa.array([None if i % 13 == 6 else
                           {"bytes": None if i % 6 == 1 else rng.bytes(i * 3), "path": f"{i}.png"}
                           for i in range(n)],
                          pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "f64": pa.array(rng.standard_normal(n)),
        "f32": pa.array(rng.standard_normal(n).astype(np.float32)),
        "i32": pa.array(ints, pa.int32()),
        "i64": pa.array([None if i % 10 == 9 else -i * 10**9 for i in range(n)], pa.int64()),
        "u32": pa.array([2**32 - 1 - i for i in range(n)], pa.uint32()),
        "u8": pa.array([255 - i for i in range(n)], pa.uint8()),
        "flag": pa.array([None if i % 12 == 7 else i % 3 == 0 for i in range(n)]),
        "null": pa.array([None] * n, pa.float64()),
        "same": pa.array([2.5] * n),
        "list64": pa.array(lists(n, longest), pa.list_(pa.float64())),
        "list32": pa.array(lists(n, longest, [0.0, -0.5, 1.0]), pa.list_(pa.float32())),
        "listi": pa.array(lists(n, longest, [1, 2, 300]), pa.list_(pa.int16())),
        "zeros": pa.array([[0.0] * 12] * n, pa.list_(pa.float64())),
    }


def plain(v):
    if isinstance(v, bytes):
        return v.hex()
    if isinstance(v, str):
        return v.encode().hex()
    if isinstance(v, float) and math.isnan(v):
        return "nan"
    if isinstance(v, (list, np.ndarray)):
        return ["nan" if e is None else plain(e) for e in v]
    return v


def expected(table):
    got = {}
    for name in table.column_names:
        col = table[name]
        if pa.types.is_struct(col.type):
            for i, field in enumerate(col.type):
                got[f"{name}.{field.name}"] = [
                    None if v is None else plain(v[field.name]) for v in col.to_pylist()]
        else:
            got[name] = [None if v is None else plain(v) for v in col.to_pylist()]
    return got


def check(path):
    """Writes or compares the JSON of what pyarrow itself reads back, not what was meant."""
    text = json.dumps(expected(pq.read_table(path)), separators=(",", ":")) + "\n"
    values = out / (path.stem.split("-")[0] + ".json")
    if path.stem.split("-")[0] in checked:
        assert values.read_text() == text, path
    checked.add(path.stem.split("-")[0])
    values.write_text(text)


def put(name, table, **options):
    path = out / f"{name}.parquet"
    pq.write_table(table, path, **options)
    check(path)


checked = set()
table = pa.table(base())
long = pa.table({"key": [f"k{i}" for i in range(4)],
                 "long": pa.array([list(rng.standard_normal(300).astype(np.float32).astype(float))
                                   for _ in range(4)])})
if "--seeds" in sys.argv:
    bare = dict(store_schema=False, write_statistics=False)
    columns = ["text"], ["image", "flag"], ["f64", "u8"], ["list64"], ["listi"]
    for i, names in enumerate(columns):
        for version in "1.0", "2.0":
            for codec, dictionary in (("none", True), ("none", False), ("zstd", True)):
                pq.write_table(table.select(names).slice(1, 9), out / f"{i}-v{version[0]}-{codec}-"
                               f"{dictionary}.parquet", data_page_version=version, row_group_size=5,
                               compression=codec, use_dictionary=dictionary, **bare)
    sys.exit(0)

if old:
    checked.update(("table", "long"))  # must equal what the new one wrote
    split = dict(data_page_size=64, write_batch_size=4)
    put("table-old-split", table, row_group_size=25, use_dictionary=False, **split)
    put("table-old-split-dict", table, row_group_size=25, **split)
    put("table-old-v2", table, data_page_version="2.0", **split)
    put("long-old-split", long, use_dictionary=False, data_page_size=512, write_batch_size=32)
    (out / "versions-old.txt").write_text(f"pyarrow {pa.__version__}, numpy {np.__version__}\n")
    sys.exit(0)

for version in "1.0", "2.0":
    for codec in "none", "snappy", "gzip", "zstd":
        for dictionary in True, False:
            put(f"table-v{version[0]}-{codec}-{'dict' if dictionary else 'plain'}", table,
                data_page_version=version, compression=codec, use_dictionary=dictionary)

# Many pages and row groups; lists that run over pages (only version 1 does that).
small = dict(data_page_size=256, write_batch_size=8)
put("table-v1-pages", table, row_group_size=25, use_dictionary=False, **small)
put("table-v2-pages", table, row_group_size=25, use_dictionary=False, data_page_version="2.0", **small)
put("table-v1-pages-dict", table, row_group_size=25, dictionary_pagesize_limit=300, **small)
put("table-v1-item", table, use_compliant_nested_type=False, compression="none")
put("table-format1", table, version="1.0", use_deprecated_int96_timestamps=True)
put("long", long, use_dictionary=False, data_page_size=1024, write_batch_size=64)

try:
    import duckdb
    con = duckdb.connect()
    con.register("t", table)
    con.sql("SET threads = 1")
    for name, how in (("snappy", "COMPRESSION snappy"), ("zstd", "COMPRESSION zstd")):
        con.sql(f"COPY t TO '{out}/table-duckdb-{name}.parquet' (FORMAT parquet, {how})")
        check(out / f"table-duckdb-{name}.parquet")
except ImportError:
    duckdb = None
try:
    import polars
    polars.from_arrow(table).write_parquet(out / "table-polars.parquet", statistics=False)
    check(out / "table-polars.parquet")
    polars.from_arrow(table).write_parquet(out / "table-polars-pages.parquet",
                                           compression="gzip", data_page_size=100)
    check(out / "table-polars-pages.parquet")
except ImportError:
    polars = None

# Required columns: no levels at all.
fields = [pa.field("key", pa.string(), False), pa.field("x", pa.float64(), False),
          pa.field("list", pa.list_(pa.field("element", pa.float64(), False)), False)]
put("required", pa.table([["a", "b", "c"], [1.0, 2.0, 3.0], [[1.0], [], [2.0, 3.0]]],
                         schema=pa.schema(fields)))
put("empty", table.slice(0, 0))

# The reference's table, by pandas.
frame = pd.DataFrame([(f"{i:064x}", list(rng.standard_normal(96)), list(rng.standard_normal(8)),
                       [0.0] * 21) for i in range(3)],
                     columns=["image_hash", "prompt_embeds", "pooled_prompt_embeds", "text_ids"])
frame.to_parquet(out / "pandas.parquet")
check(out / "pandas.parquet")

# What is refused, each by a column of its own; no expected values.
refused = {
    "list_of_strings": pa.array([["a"], ["b"]]),
    "list_of_lists": pa.array([[[1.0]], [[2.0]]]),
    "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
    "fixed": pa.array([b"ab", b"cd"], pa.binary(2)),
}
pq.write_table(pa.table(refused), out / "refused-types.parquet")
halves = pa.array([np.zeros(2, np.float16), np.ones(2, np.float16)], pa.list_(pa.float16()))
pq.write_table(pa.table({"halves": halves}), out / "refused-float16.parquet")

# Embedding tables for test-embedding-table.c: integers are right for text_ids only.
ramp = {"prompt_embeds": [[float(np.float32(1) + np.float32(i) / np.float32(3)) for i in range(12)]],
        "pooled_prompt_embeds": [[float(np.float32(-1) + np.float32(i) / np.float32(3)) for i in range(5)]],
        "text_ids": [[0.0] * 9]}
for name, integers in [("embeddings-int-ids", "text_ids"), ("refused-int-embeds", "prompt_embeds"),
                       ("refused-int-pooled", "pooled_prompt_embeds")]:
    pq.write_table(pa.table({"image_hash": ["aa"]} | {
        k: pa.array([[int(x) for x in v[0]]] if k == integers else v,
                    pa.list_(pa.int64() if k == integers else pa.float64())) for k, v in ramp.items()}),
        out / f"{name}.parquet")
small = pa.table({"x": [1.0, 2.0], "i": [1, 2], "s": ["a", "b"]})
pq.write_table(small, out / "refused-delta.parquet", use_dictionary=False,
               column_encoding={"i": "DELTA_BINARY_PACKED", "s": "DELTA_BYTE_ARRAY",
                                "x": "BYTE_STREAM_SPLIT"})
for codec in "lz4", "brotli":
    pq.write_table(small, out / f"refused-{codec}.parquet", compression=codec)

(out / "versions.txt").write_text(f"pyarrow {pa.__version__}, pandas {pd.__version__}, "
                                  f"numpy {np.__version__}" +
                                  "".join(f", {m.__name__} {m.__version__}"
                                          for m in (duckdb, polars) if m) + "\n")
