#!/bin/sh
# tests/examples/embed.sh: examples/embed.py trains, saves on Ctrl-C and goes on, says what is wrong, and shows a
# preview in a window, which is looked at.
# SPDX-License-Identifier: LGPL-2.1-or-later
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
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
  exec ${wrapper:-} $python "$top/examples/embed.py" --model "$top/examples/models/tiny-flux-emoji" --size 64 --tokens 32 \
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

(embed c.safetensors "$dir/pictures" --steps -1)
[ $? -eq 2 ] && grep -q "argument --steps: invalid" "$dir/log"
result $? "a number of steps below 1 is refused"

if gst-inspect-1.0 --exists ximagesink && gst-inspect-1.0 --exists ximagesrc && command -v Xvfb >/dev/null; then
  wrapper="$here/xvfb $here/window $dir/window.png 64"
  (embed d.safetensors "$dir/pictures" --steps 100000 --preview "a banana" --every 2)
  [ $? -eq 0 ] && [ "$(wc -c <"$dir/window.png")" -gt 2000 ] && [ -s "$dir/d.safetensors" ]
  result $? "shows a preview in a window, and Ctrl-C saves"
else
  n=$((n + 1))
  echo "ok $n # SKIP no Xvfb, ximagesink (gstreamer1.0-x) or ximagesrc"
fi
echo "1..$n"
