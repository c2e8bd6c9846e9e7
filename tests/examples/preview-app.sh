#!/bin/sh
# tests/examples/preview-app.sh PROGRAM: trains, stops and saves in a window; the window is looked at.
# SPDX-License-Identifier: LGPL-2.1-or-later
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
model=$top/examples/models/tiny-flux-emoji
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/pictures"
cp "$top"/examples/data/style-openmoji/banana.png "$top"/examples/data/style-openmoji/owl.png "$dir/pictures"
echo "a banana" >"$dir/pictures/banana.txt"
echo "an owl" >"$dir/pictures/owl.txt"
n=0
result () { # result STATUS NAME
  n=$((n + 1))
  [ "$1" -eq 0 ] && echo "ok $n - $2" || { echo "not ok $n - $2"; sed 's/^/# /' "$dir/log"; }
}
app () {
  "$here/xvfb" "$@" --model "$model" --output "$dir/a.safetensors" --width 64 --height 64 --tokens 32 \
    --every 3 --steps 1000 --start >"$dir/log" 2>&1
}
is_png () { # of a window: wide, and more than one colour
  [ "$(head -c 4 "$1" | tail -c 3)" = PNG ] && [ "$(wc -c <"$1")" -gt 20000 ]
}

app "$1" --folder "$dir/pictures" --stop-at 5 --screenshot "$dir/window.png"
status=$?
[ $status -ne 77 ] || { echo "1..0 # SKIP $(tail -1 "$dir/log")"; exit 0; }
result $status "stops and saves"
[ -s "$dir/a.safetensors" ] && is_png "$dir/window.png"
result $? "the adapter is written and the window drawn"
rm -f "$dir/a.safetensors"
app "$1" --folder "$dir/nothing" --screenshot "$dir/error.png"
[ $? -eq 1 ] && [ ! -e "$dir/a.safetensors" ] && is_png "$dir/error.png"
result $? "a folder that is not there is an error in the window"
app "$1" --folder "$dir/pictures" --stop-at -2
[ $? -eq 2 ] && grep -q "take a positive number" "$dir/log"
result $? "a negative number is refused"

# Ctrl-C is as closing the window.
: >"$dir/log"
(
  for i in $(seq 600); do
    ! grep -q 'flux-step, step=(guint64)2,' "$dir/log" || break
    sleep 0.1
  done
  kill -INT "$(cat "$dir/pid")"
) &
export GST_DEBUG=fluxtrainsink:6 # its steps
app sh -c 'echo $$ >"$0" && exec "$@"' "$dir/pid" "$1" --folder "$dir/pictures"
[ $? -eq 0 ] && [ -s "$dir/a.safetensors" ]
result $? "closed while it trains, it saves first"
echo "1..$n"
