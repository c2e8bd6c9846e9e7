# bash completion for gst-flux. SPDX-License-Identifier: LGPL-2.1-or-later

# The folder of the pipeline files.
_gst_flux_folder () {
  local program=${COMP_WORDS[0]}
  if [ -n "${GST_FLUX_PIPELINES:-}" ]; then
    printf '%s\n' "$GST_FLUX_PIPELINES"
  elif program=$(type -P "$program" 2>/dev/null); then
    printf '%s\n' "$(dirname "$(dirname "$program")")/share/gst-flux/pipelines"
  fi
}

# Writable properties of an element.
_gst_flux_properties () {
  gst-inspect-1.0 --no-colors "$1" 2>/dev/null | awk '
    /^Element Properties/ { on = 1; next }
    /^[^ ]/ { on = 0 }
    on && /^  [a-z]/ { name = $1; sub (/:$/, "", name) }
    on && /flags:.*writable/ && name != "name" && name != "parent" { print name; name = "name" }'
}

# Elements of a pipeline file: "FACTORY NAME", NAME is - where it has none.
_gst_flux_elements () {
  tr '!' '\n' <"$1" | awk '
    { name = "-"
      for (i = 2; i <= NF; i++) if ($i ~ /^name=/) name = substr ($i, 6)
      if (NF > 0) print $1, name }'
}

_gst_flux_values () {
  local file=$1 word=$2 factory name property
  while read -r factory name; do
    case $word in
      "$name".*)
        for property in $(_gst_flux_properties "$factory"); do
          printf '%s\n' "$name.$property="
        done ;;
    esac
    [ "$name" = - ] || printf '%s\n' "$name."
  done < <(_gst_flux_elements "$file")
  case $word in
    *.*) ;;
    ?*) # a property of any of them
      while read -r factory name; do
        case $factory in flux*) _gst_flux_properties "$factory" ;; esac
      done < <(_gst_flux_elements "$file") | sed 's/$/=/' | sort -u ;;
  esac
}

_gst_flux () {
  local current previous folder line pipeline= i word
  # COMP_WORDBREAKS cuts words at = and :, so they are taken from the line.
  line=${COMP_LINE:0:COMP_POINT}
  current=${line##*[[:space:]]}
  read -ra words <<<"$line"
  [ -n "$current" ] || words+=('')
  previous=${words[${#words[@]} - 2]}
  folder=$(_gst_flux_folder)
  COMPREPLY=()

  for ((i = 1; i < ${#words[@]} - 1; i++)); do
    word=${words[i]}
    case $word in
      -l | --log) i=$((i + 1)) ;;
      -*) ;;
      *) pipeline=$word; break ;;
    esac
  done
  case $previous in
    -l | --log) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
  esac
  case $current in
    --log=* | *=*) # the value is a path most often
      mapfile -t COMPREPLY < <(compgen -f -- "${current#*=}"); return ;;
    -*)
      mapfile -t COMPREPLY < <(compgen -W '--log --version --help --help-all --help-gst' -- "$current")
      return ;;
  esac
  if [ -z "$pipeline" ]; then
    local names="pull push" file
    for file in "$folder"/*.launch; do
      [ -f "$file" ] && file=${file##*/} && names="$names ${file%.launch}"
    done
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current"; compgen -f -X '!*.launch' -- "$current")
  elif [ "$pipeline" = pull ]; then
    case $current in
      hf:*) ;;
      *) mapfile -t COMPREPLY < <(compgen -W 'model vae text transformer lora dataset hf://' -- "$current") ;;
    esac
    [ "${COMPREPLY[*]}" = hf:// ] && compopt -o nospace 2>/dev/null
  elif [ "$pipeline" = push ]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current"
      compgen -W 'private=false base-model= trigger-words=' -- "$current")
  else
    [ -f "$pipeline" ] || pipeline=$folder/$pipeline.launch
    [ -f "$pipeline" ] || return
    mapfile -t COMPREPLY < <(compgen -W "$(_gst_flux_values "$pipeline" "$current")" -- "$current")
    compopt -o nospace 2>/dev/null
  fi
  return 0
}

complete -F _gst_flux gst-flux
