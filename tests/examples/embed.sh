#!/bin/sh
# tests/examples/embed.sh: examples/embed.py trains, saves on Ctrl-C and goes on, and says what is wrong.
# SPDX-License-Identifier: LGPL-2.1-or-later
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
python=/usr/bin/python3
$python -c 'import gi; gi.require_version("Gst", "1.0"); from gi.repository import Gst' 2>/dev/null ||
  { echo "1..0 # SKIP no python3-gi or gir1.2-gstreamer-1.0"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/pictures"
cp "$top/examples/data/style-openmoji/banana.png" "$dir/pictures"
echo "a banana" >"$dir/pictures/banana.txt"
n=0
result () { # result STATUS NAME
  n=$((n + 1))
  [ "$1" -eq 0 ] && echo "ok $n - $2" || { echo "not ok $n - $2"; sed 's/^/# /' "$dir/log"; }
}
embed () { # embed OUTPUT OPTION...
  output=$dir/$1
  shift
  exec $python "$top/examples/embed.py" --model "$top/examples/models/tiny-flux-emoji" --size 64 --tokens 32 \
    --learning-rate 0.001 "$@" "$output" >"$dir/log" 2>&1
}

(embed a.safetensors "$dir/pictures" --steps 6)
[ $? -eq 0 ] && [ -s "$dir/a.safetensors" ] && [ "$(grep -c '^step ./6  loss [0-9]\.' "$dir/log")" -eq 6 ]
result $? "trains and prints each step"

embed b.safetensors "$dir/pictures" --steps 100000 &
for i in $(seq 600); do
  grep -q '^step 3/' "$dir/log" && break
  sleep 0.1
done
kill -INT $!
wait $!
[ $? -eq 0 ] && [ -s "$dir/b.safetensors" ] && checkpoint=$(ls -d "$dir"/b-checkpoints/checkpoint-*)
result $? "Ctrl-C saves the adapter and a checkpoint"

last=$(basename "${checkpoint:-none}" | tr -dc 0-9)
(embed b.safetensors "$dir/pictures" --steps $((last + 2)) --resume "${checkpoint:-none}")
[ $? -eq 0 ] && [ "$(grep '^step' "$dir/log" | head -1 | cut -d' ' -f2)" = "$((last + 1))/$((last + 2))" ]
result $? "goes on from the checkpoint"

(embed c.safetensors "$dir/nothing" --steps 6)
[ $? -eq 1 ] && [ "$(grep -c '^error: ' "$dir/log")" -eq 1 ] && grep -q "$dir/nothing" "$dir/log"
result $? "one error that names the folder that is not there"
echo "1..$n"
