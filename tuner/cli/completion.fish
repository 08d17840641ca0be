# Completion of atelier for fish: atelier completion fish > ~/.config/fish/completions/atelier.fish
function __atelier_words
    set -l before (commandline -opc)
    set -l now (commandline -ct)
    set -l lines ($before[1] completion words -- $before[2..-1] "$now" 2>/dev/null)
    if test "$lines[1]" = ":files"
        __fish_complete_path "$now"
    else
        printf '%s\n' $lines
    end
end
complete -c atelier -f -k -a '(__atelier_words)'
