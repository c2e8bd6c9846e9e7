#!/bin/sh
# tests/pipelines/runner.sh GST_FLUX: what gst-flux says of its pipelines and commands, where it finds pipelines,
# and how it ends when it is stopped. SPDX-License-Identifier: LGPL-2.1-or-later
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export GST_REGISTRY_1_0="$out/registry.bin"
fail () { echo "$1"; cat "$out/said"; exit 1; }
says () { grep -qF -e "$1" "$out/said" || fail "does not say: $1"; }

# Names, and help.
export GST_FLUX_PIPELINES="$top/pipelines"
"$1" --help >"$out/said"
says "cache, embed, fuse, sample, train, train-preview"
for command in pull push; do
  "$1" $command --help >"$out/said"
  says "Usage: gst-flux $command"
done
if "$1" trian 2>"$out/said"; then fail "runs what is not there"; fi
says "no pipeline 'trian'"
says "There are: cache, embed, fuse, sample, train, train-preview."

# A tree that was moved finds its own pipelines.
unset GST_FLUX_PIPELINES
mkdir -p "$out/usr/bin" "$out/usr/share/gst-flux/pipelines"
cp "$1" "$out/usr/bin/gst-flux"
echo 'fakesrc num-buffers=3 ! fakesink' >"$out/usr/share/gst-flux/pipelines/three.launch"
"$out/usr/bin/gst-flux" three 2>"$out/said" || fail "does not find ../share/gst-flux/pipelines"

# Stopped with something in its sink, and with nothing.
stop () {
  echo "fakesrc filltype=zero sizetype=fixed sizemax=16 ! identity sleep-time=10000 dump=true ! identity drop-probability=$2 !
    fakesink async=false" >"$out/stop.launch"
  "$1" "$out/stop.launch" >"$out/ran" 2>"$out/said" &
  while [ ! -s "$out/ran" ]; do kill -0 $! || fail "ended by itself"; sleep 0.1; done
  sleep 0.2
  kill -TERM $!
  status=0
  wait $! || status=$?
}
stop "$1" 0
[ $status = 0 ] || fail "status $status with a result"
stop "$1" 1
[ $status = 130 ] || fail "status $status without a result"
says "Stopped before there was anything to save."
