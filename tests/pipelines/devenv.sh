#!/bin/sh
# tests/pipelines/devenv.sh BUILD_DIR [MODULE]: in `meson devenv` gst-flux runs by its name, from any folder, with
# the pipelines, the plugin and the CUDA module of the build. SPDX-License-Identifier: LGPL-2.1-or-later
set -eu
command -v meson >/dev/null || exit 77
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
unset GST_PLUGIN_PATH GST_PLUGIN_PATH_1_0 GST_FLUX_PIPELINES FLUX_CUDA_MODULE
export GST_REGISTRY_1_0="$out/registry.bin"
inside () { meson devenv -C "$build" -w "$out" "$@"; }
build=$1
said=$(inside sh -c 'command -v gst-flux')
[ "$said" = "$1/pipelines/gst-flux" ] || { echo "gst-flux is '$said'"; exit 1; }
inside gst-flux --help | grep -qF "cache, embed, fuse, sample, train, train-preview" || { echo "no pipelines"; exit 1; }
echo 'fluxdatasetsrc name=dataset ! fakesink' >"$out/read.launch"
inside gst-flux read.launch dataset.location="$top/tests/data/images" dataset.instance-prompt=x || { echo "no elements, or another folder"; exit 1; }
said=$(inside sh -c 'echo "${FLUX_CUDA_MODULE-}"')
[ "$said" = "${2-}" ] || { echo "FLUX_CUDA_MODULE is '$said'"; exit 1; }
[ -z "${2-}" ] || [ -f "$2" ] || { echo "there is no $2"; exit 1; }
