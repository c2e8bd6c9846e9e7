# tests/reference/check_reports.py: TensorBoard's own EventAccumulator and hparams reader on what
# flux/report writes. check_reports.py BUILD_DIR (tests/flux/write-report is built there); its
# output is check_reports.out. SPDX-License-Identifier: LGPL-2.1-or-later
import io, json, os, subprocess, sys, tempfile

from PIL import Image
import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

folder = tempfile.mkdtemp()
jsonl, events = subprocess.run([f"{sys.argv[1]}/tests/flux/write-report", folder], check=True, capture_output=True,
                               text=True).stdout.split("\n")[:2]
print("jsonl")
for line in open(jsonl):
    print(" ", {k: v for k, v in json.loads(line).items() if k in ("step", "loss", "paired_loss", "memory_bytes")})
print("TensorBoard", tensorboard.__version__)
acc = EventAccumulator(os.path.dirname(events))
acc.Reload()
print("file version", acc.file_version)
for tag in sorted(acc.Tags()["scalars"]):
    print(" ", tag, [(e.step, round(e.value, 6)) for e in acc.Scalars(tag)])
for tag in acc.Tags()["images"]:
    for e in acc.Images(tag):
        im = Image.open(io.BytesIO(e.encoded_image_string))
        same = im.tobytes() == bytes(i * 5 % 256 for i in range(8 * 16 * 3))
        print(" ", tag, "step", e.step, f"{e.width}x{e.height}", im.mode, im.size, "same pixels:", same)
for tag, content in sorted(acc.summary_metadata.items()):
    if content.plugin_data.plugin_name != "hparams":
        continue
    if tag.endswith("start_info"):
        info = metadata.parse_session_start_info_plugin_data(content.plugin_data.content)
        print(" ", tag, {k: v.number_value if v.HasField("number_value") else v.string_value
                         for k, v in sorted(info.hparams.items())})
    else:
        info = metadata.parse_session_end_info_plugin_data(content.plugin_data.content)
        print(" ", tag, "status", info.status)
