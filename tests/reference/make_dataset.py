#!/usr/bin/env python3
# Writes tests/data/dataset: parquet image data sets as the Hub serves them.
# SPDX-License-Identifier: LGPL-2.1-or-later
#
#   venv/bin/pip install pyarrow
#   venv/bin/python tests/reference/make_dataset.py tests/data/images tests/data/dataset
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq

IMAGES, OUT = sys.argv[1:]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# What `datasets` keeps in the schema, so that load_dataset() sees pictures.
META = {b"huggingface": b'{"info": {"features": {"image": {"_type": "Image"}, '
                        b'"text": {"dtype": "string", "_type": "Value"}}}}'}


def picture(name):
    with open(os.path.join(IMAGES, name), "rb") as f:
        return {"bytes": f.read(), "path": name}


def write(path, images, texts, column="text", **options):
    path = os.path.join(OUT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    table = pa.table({"image": pa.array(images, IMAGE), column: pa.array(texts, pa.string())})
    pq.write_table(table.replace_schema_metadata(META), path, **options)


# Two shards, several row groups; the folder also has a split that is not for training.
write("hub/data/train-00000-of-00002.parquet",
      [picture("rgb8.png"), picture("rgb-420.jpg"), picture("rgb-lossy.webp")],
      ["first", "zwei Bäume", "第三"], row_group_size=2)
write("hub/data/train-00001-of-00002.parquet", [picture("grey.jpg")], ["fourth"],
      compression="none")
write("hub/data/test-00000-of-00001.parquet", [picture("cmyk.jpg")], ["never"])
# A row without caption, one without picture, one with only a path, one of another format.
write("gaps.parquet",
      [picture("grey8.png"), None, {"bytes": None, "path": "../images/rgb8.png"},
       {"bytes": b"GIF89a\1\0\1\0", "path": "anim.gif"}],
      [None, "nothing", "elsewhere", "moving"])
write("prompt.parquet", [picture("grey8.png")], ["by another name"], column="prompt")
# The table of embeddings that lies about beside pictures.
pq.write_table(pa.table({"image_hash": ["00"], "prompt_embeds": [[0.5, 1.0]]}),
               os.path.join(OUT, "embeddings.parquet"))
pq.write_table(pa.table({"image": pa.array([picture("rgb8.png")["bytes"]], pa.binary()),
                         "text": pa.array([b"caf\xe9"], pa.binary())}),
               os.path.join(OUT, "latin1.parquet"))
pq.write_table(pa.table({"image": pa.array([], IMAGE), "text": pa.array([], pa.string())}),
               os.path.join(OUT, "empty.parquet"))
