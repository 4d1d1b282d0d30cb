# Completion of unixsock(1) for bash.

_unixsock() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local formats='string hex hexstring json pcap pcapng parquet'
    local terms='path pid comm uid type inode netns cgroup unit container fds creds less greater event src dst and or not'
    local choices='--path --type --pid --comm --uid'
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W 'dump record sockets check install uninstall export query import replay --help --version' -- "$current")
        return
    fi
    [[ $command == export ]] && formats='json python go rust hexstring tcp dbus har mermaid plantuml dot raw umockdev parquet'
    [[ $command == query ]] && formats='table json csv'
    [[ $command == sockets ]] && formats='table json dot'
    case $previous in
        --format) mapfile -t COMPREPLY < <(compgen -W "$formats" -- "$current"); return ;;
        --colour | --color) mapfile -t COMPREPLY < <(compgen -W 'auto always never' -- "$current"); return ;;
        --type | type) mapfile -t COMPREPLY < <(compgen -W 'stream dgram seqpacket' -- "$current"); return ;;
        event) mapfile -t COMPREPLY < <(compgen -W 'data connect accept shutdown close send_error lost refused undelivered' -- "$current"); return ;;
        --privilege) mapfile -t COMPREPLY < <(compgen -W 'auto sudo pkexec none' -- "$current"); return ;;
        --remote-priv) mapfile -t COMPREPLY < <(compgen -W 'sudo doas none' -- "$current"); return ;;
        --group) mapfile -t COMPREPLY < <(compgen -g -- "$current"); return ;;
        --uid | uid) mapfile -t COMPREPLY < <(compgen -u -- "$current"); return ;;
        --from) mapfile -t COMPREPLY < <(compgen -W 'sockdump strace' -- "$current"); return ;;
        --match) mapfile -t COMPREPLY < <(compgen -W 'any bytes order' -- "$current"); return ;;
        -w | --output) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
        -b | --ring-buffer) compopt -o nospace; mapfile -t COMPREPLY < <(compgen -W 'duration: filesize: packets: files:' -- "$current"); return ;;
        --save) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
        --keep) compopt -o nospace; mapfile -t COMPREPLY < <(compgen -W 'duration: filesize:' -- "$current"); return ;;
        --trigger) compopt -o nospace; mapfile -t COMPREPLY < <(compgen -W 'refused send-error error text:' -- "$current"); return ;;
        -a | --autostop) compopt -o nospace; mapfile -t COMPREPLY < <(compgen -W 'duration:' -- "$current"); return ;;
    esac
    if [[ $current == [/@]* || $previous == path || $previous == --path ]] && [[ $command != export ]]; then
        local names
        names=$(sed -n '1!s/^\([^ ]* *\)\{7\}//p' /proc/net/unix 2>/dev/null | grep '^[/@]' | sort -u)
        local IFS=$'\n'
        mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current")
        return
    fi
    case $command in
        dump)
            mapfile -t COMPREPLY < <(compgen -W "$terms $choices --format -w --output -b --ring-buffer -c --count -a --autostop \
                --colour --color --snaplen --buffer-size --events --process-details --process-blocks --include-capture-processes --privilege \
                --rotate-size --rotate-age --host --via --remote-priv --control -h --help" -- "$current")
            ;;
        record)
            mapfile -t COMPREPLY < <(compgen -W "$terms $choices --keep --save -w --output --trigger --snaplen \
                --buffer-size --events --process-details --process-blocks --include-capture-processes --privilege -h --help" -- "$current")
            ;;
        sockets) mapfile -t COMPREPLY < <(compgen -W "$terms $choices --format --json --waiting --group-by --watch -h --help" -- "$current") ;;
        check) mapfile -t COMPREPLY < <(compgen -W '--filter -h --help' -- "$current") ;;
        install) mapfile -t COMPREPLY < <(compgen -W '--user --system --group --no-group --yes -h --help' -- "$current") ;;
        uninstall) mapfile -t COMPREPLY < <(compgen -W '--user --system -h --help' -- "$current") ;;
        import | replay)
            local options='-w --output --from'
            [[ $command == replay ]] && options='--name -Y --display-filter --match'
            if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$options -h --help" -- "$current")
            else
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            ;;
        query)
            if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '--format -w --output -h --help' -- "$current")
            else
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -d -- "$current")
            fi
            ;;
        export)
            if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '-Y --display-filter --format -w --output --host --dissect \
                    --rotate-size --rotate-age -h --help' -- "$current")
            else
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            ;;
    esac
}
complete -F _unixsock unixsock
