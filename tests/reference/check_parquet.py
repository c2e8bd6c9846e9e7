#!/usr/bin/env python3
# tests/reference/check_parquet.py: pandas, and what other parquet readers are installed, read
# the tables that ours writes. SPDX-License-Identifier: LGPL-2.1-or-later
#
# check_parquet.py BUILD_DIR > check_parquet.out. Exit status 1 when a value differs.
# Needs pandas and pyarrow; fastparquet, duckdb and polars are asked when they are there.
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = "prompt_embeds", "pooled_prompt_embeds", "text_ids"


def key_at(row):
    return "\u00e9t\u00e9 \U0001f34e" if row == 1 else f"{row:064x}"


def values_at(row, column, prompt):
    """As value_at and length_at of tests/flux/test-parquet-write.c."""
    n = 21 if column == 2 else 8 if column == 1 else 0 if row == 2 else prompt
    return (row * 7919 + column * 104729 + np.arange(n) * 31) % 65536 / 4096 - 8


def wrong(keys, lists, rows, prompt):
    """The number of values that differ from what was written."""
    assert len(keys) == rows, len(keys)
    bad = sum(keys[r] != key_at(r) for r in range(rows))
    for c, name in enumerate(COLUMNS):
        for r in range(rows):
            got, want = np.asarray(lists[name][r], np.float64), values_at(r, c, prompt)
            bad += max(len(got), len(want)) if len(got) != len(want) else int((got != want).sum())
    return bad


def by_pandas(path, engine="pyarrow"):
    df = pd.read_parquet(path, engine=engine)
    return list(df["image_hash"]), {c: list(df[c]) for c in COLUMNS}


def by_duckdb(path):
    import duckdb
    rows = duckdb.sql(f"SELECT image_hash, {', '.join(COLUMNS)} FROM '{path}'").fetchall()
    return [r[0] for r in rows], {c: [r[i + 1] for r in rows] for i, c in enumerate(COLUMNS)}


def by_polars(path):
    import polars as pl
    df = pl.read_parquet(path)
    return df["image_hash"].to_list(), {c: df[c].to_list() for c in COLUMNS}


readers = {"pandas": by_pandas, "fastparquet": lambda p: by_pandas(p, "fastparquet"),
           "duckdb": by_duckdb, "polars": by_polars}
warnings.simplefilter("ignore")  # pandas wants nobody to use fastparquet
total = 0
with tempfile.TemporaryDirectory() as folder:
    test = pathlib.Path(sys.argv[1]) / "tests/flux/test-parquet-write"
    subprocess.run([test, "-p", "/parquet-write/keeps-tables-for-others"], check=True,
                   stdout=subprocess.DEVNULL, env=os.environ | {"FLUX_TEST_KEEP": folder})
    for name, rows, prompt in (("embeddings", 5, 96), ("big", 16, 315392), ("empty", 0, 0)):
        path = f"{folder}/{name}.parquet"
        meta = pq.ParquetFile(path).metadata
        print(f"{name}: {meta.num_rows} rows, {meta.num_row_groups} row groups, "
              f"created by {meta.created_by}")
        for reader, read in readers.items():
            try:
                version = importlib.import_module(reader).__version__
            except ImportError:
                continue
            bad = wrong(*read(path), rows, prompt)
            total += bad
            print(f"  {reader} {version}: {bad} values differ")
    df = pd.read_parquet(f"{folder}/embeddings.parquet")
    print(f"pyarrow {pa.__version__}, schema of the pandas frame:")
    print(df.dtypes.to_string())
    print(f"index: {df.index!r}")
    schema = str(pq.ParquetFile(f"{folder}/embeddings.parquet").schema)
    print(schema[schema.index("\n") + 1:].rstrip())
    # As the reference's trainer takes them (train_dreambooth_lora_flux_nano.py).
    row = df.iloc[0]
    embeds = np.array(row["prompt_embeds"]).reshape(12, 8)
    ids = np.array(row["text_ids"]).reshape(7, 3)
    print(f"first row as the reference reshapes it: {embeds.shape} {embeds.dtype}, {ids.shape}")
sys.exit(total != 0)
