#!/bin/sh
# tests/pipelines/man.sh GST_FLUX MAN_PAGE: the page has every option and word of --help, every pipeline that
# is installed and every part that pull takes. SPDX-License-Identifier: LGPL-2.1-or-later
top=$(cd "$(dirname "$0")/../.." && pwd)
status=0
page=$(sed 's/\\-/-/g' "$2")
has () {
  printf '%s\n' "$page" | grep -qE -e "(^|[^a-z-])$1([^a-z-]|\$)" || { echo "the page lacks $1"; status=1; }
}
help=$("$1" --help) || exit 1
options=$(printf '%s\n' "$help" | grep -oE -e '^ +(-[a-z], )?--[a-z-]+' | grep -oE -e '-[a-z], |--[a-z-]+' | tr -d ', ')
[ -n "$options" ] || { echo "--help names no option"; exit 1; }
for word in $options $(printf '%s\n' "$help" | sed -n '/PIPELINE/s/.*| //p' | awk '{ print $1 }'); do
  has "$word"
done
for file in "$top"/pipelines/*.launch; do
  has "$(basename "$file" .launch)"
done
for part in $(sed -n 's/.*"gst-flux: write pull \[\([a-z|]*\)\].*/\1/p' "$top/pipelines/pull.c" | tr '|' ' '); do
  has "$part"
done
for variable in $(grep -ohE 'g_getenv \("[A-Z_]+"' "$top"/pipelines/*.c | cut -d'"' -f2 | grep -v '^GST_DEBUG$'); do
  has "$variable"
done
# An option that is gone is no longer described either.
for option in $(printf '%s\n' "$page" | sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' | grep -oE -e '--[a-z-]+'); do
  printf '%s\n' "$help" | grep -qE -e "$option( |=|\$)" || { echo "--help lacks $option"; status=1; }
done
if command -v mandoc >/dev/null; then
  mandoc -Tlint -W warning "$2" | grep -v 'missing date' && status=1
fi
exit $status
