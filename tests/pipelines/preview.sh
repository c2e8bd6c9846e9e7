#!/bin/sh
# tests/pipelines/preview.sh GST_FLUX PLUGIN_DIR: when the previews' sink fails (a closed window, a full disk), what is
# trained is saved; when what brings the samples fails, there is no adapter. SPDX-License-Identifier: LGPL-2.1-or-later
set -eu
[ -c /dev/full ] || exit 77
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flux=$1
model=$top/examples/models/tiny-flux-emoji
export GST_PLUGIN_PATH="$2" GST_REGISTRY_1_0="$out/registry.bin" GST_FLUX_PIPELINES="$top/pipelines"
mkdir "$out/pictures"
cp "$top/tests/data/images/grey.jpg" "$out/pictures"
fail () { echo "$1"; cat "$out/said"; exit 1; }
"$flux" cache model="$model" text-model="$model" dataset.location="$out/pictures" dataset.instance-prompt=grey \
  crop.width=64 crop.height=64 cache-location="$out/latents" embed.location="$out/e.safetensors" \
  max-sequence-length=32 cache.location="$out/cache" 2>"$out/said" || fail "no cache"

# train FILTER SINK: of the samples, of the previews. Both trainings would take days.
train () {
  echo "fluxcachesrc location=$out/cache epochs=-1 ! $1 !
    fluxtrainsink model=$model max-steps=10000000 location=$out/a.safetensors
    fluxsamplersrc model=$model every-steps=1 steps=1 prompt=grey max-sequence-length=32 !
    video/x-raw,width=64,height=64 ! $2" >"$out/train.launch"
  status=0
  "$flux" "$out/train.launch" 2>"$out/said" || status=$?
  [ $status = 1 ] || fail "status $status"
}
train identity "filesink location=/dev/full"
grep -q "No space left" "$out/said" || fail "does not say what failed"
grep -q "^Saved $out/a.safetensors" "$out/said" && [ -s "$out/a.safetensors" ] || fail "no adapter"
[ "$(grep -c 'filesink0\|preview\|samplersrc' "$out/said")" = 1 ] || fail "says more than what failed"
rm "$out/a.safetensors"
train "identity error-after=40" fakesink
[ ! -e "$out/a.safetensors" ] || fail "an adapter of half the samples"
