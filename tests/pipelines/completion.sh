#!/bin/bash
# tests/pipelines/completion.sh PLUGIN_DIR: what bash offers after gst-flux.
# SPDX-License-Identifier: LGPL-2.1-or-later
top=$(cd "$(dirname "$0")/../.." && pwd)
export GST_PLUGIN_PATH_1_0=$1 GST_FLUX_PIPELINES=$top/pipelines
. "$top/pipelines/gst-flux.bash" || exit 1
complete -p gst-flux >/dev/null || exit 1
status=0

# offers LINE WORD...: WORDs are among what is offered for LINE; a WORD with ! is not.
offers () {
  COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=(gst-flux)
  shift
  _gst_flux 2>/dev/null
  local word found
  for word; do
    printf '%s\n' "${COMPREPLY[@]}" | grep -qxF -- "${word#!}" && found=yes || found=no
    case $word in
      !*) [ $found = no ] ;;
      *) [ $found = yes ] ;;
    esac || { echo "'$COMP_LINE': $word, offered: ${COMPREPLY[*]}"; status=1; }
  done
}

offers 'gst-flux ' train sample embed cache train-preview fuse pull push '!--log'
offers 'gst-flux tr' train train-preview '!sample'
offers 'gst-flux -' --log --version --help '!train'
for option in $("${GST_FLUX:-gst-flux}" --help | grep -oE -- '--[a-z-]+'); do
  offers "gst-flux $option" "$option"
done
offers 'gst-flux pull ' model vae text transformer lora dataset hf://
offers 'gst-flux pull l' lora '!model'
offers "gst-flux push $top/pipel" "$top/pipelines"
offers 'gst-flux push x tests/y pri' private=false
offers "gst-flux --log $top/LICEN" "$top/LICENSE"
offers 'gst-flux --log x.jsonl sam' sample
offers 'gst-flux train d' dataset. '!size.'
offers "gst-flux sample model=$top/REA" "$top/README.md"
if command -v gst-inspect-1.0 >/dev/null && gst-inspect-1.0 fluxtrainsink >/dev/null 2>&1; then
  offers 'gst-flux train train.l' train.location= train.learning-rate= train.lr-scheduler= '!train.loss='
  offers 'gst-flux train max-s' max-steps= max-sequence-length=
  offers 'gst-flux train train.st' '!train.state='
else
  echo "gst-inspect-1.0 does not load the plugin: properties not checked"
fi
exit $status
