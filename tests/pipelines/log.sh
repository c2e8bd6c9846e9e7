#!/bin/sh
# tests/pipelines/log.sh GST_FLUX PLUGIN_DIR: --log writes a line a step; where it cannot, training goes on and
# says so once. SPDX-License-Identifier: LGPL-2.1-or-later
set -eu
[ -c /dev/full ] || exit 77
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
model=$top/examples/models/tiny-flux-emoji
export GST_PLUGIN_PATH="$2" GST_REGISTRY_1_0="$out/registry.bin" GST_FLUX_PIPELINES="$top/pipelines"
mkdir "$out/pictures"
cp "$top/tests/data/images/grey.jpg" "$out/pictures"
train () {
  "$1" --log "$2" train model="$model" text-model="$model" dataset.location="$out/pictures" \
    crop.width=64 crop.height=64 cache-location="$out/latents" embed.location="$out/e.safetensors" \
    dataset.instance-prompt=grey max-sequence-length=32 max-steps=3 train.location="$out/a.safetensors" 2>"$out/said" ||
    { cat "$out/said"; exit 1; }
  [ -s "$out/a.safetensors" ] || { echo "no adapter"; exit 1; }
  rm "$out/a.safetensors"
}
train "$1" "$out/log.jsonl"
[ "$(grep -c '^{"step": [1-3], "loss": ' "$out/log.jsonl")" = 3 ] || { echo "no line a step"; exit 1; }
if grep -q 'Could not write' "$out/said"; then echo "complains of nothing"; exit 1; fi
train "$1" /dev/full
[ "$(grep -c "Could not write '/dev/full', which ends here: No space left" "$out/said")" = 1 ] ||
  { cat "$out/said"; echo "did not say once that the log ends"; exit 1; }
