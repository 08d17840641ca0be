#compdef atelier
# Completion of atelier for zsh: atelier completion zsh > "${fpath[1]}/_atelier"
_atelier() {
  local -a lines items
  local line
  lines=("${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ ${lines[1]} == :files ]]; then
    _files
    return
  fi
  for line in $lines; do
    items+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  _describe -V atelier items
}
if [[ $funcstack[1] == _atelier ]]; then
  _atelier "$@"
else
  compdef _atelier atelier
fi
