#!/bin/sh
# Probes whose output comes late, or is none.
[ "$(id -u)" -ge 2000 ] && [ ! -e /sys ] && [ ! -e /etc/shadow ] && [ -e /app/sandbar.toml ] || exit 99

read -r probe

case $probe in
shell-late-output)
    echo in time
    (while :; do echo too late; echo too late >&2; sleep 0.01; done) &
    ;;
shell-no-output) ;;
shell-bytes)
    # The first is none that a text begins with; what follows may be one by chance.
    printf '\377'
    head -c 100000 /dev/urandom | tr -d '\0-\177'
    ;;
shell-closed-output)
    exec >&- 2>&- <&-
    sleep 0.1
    ;;
*)
    echo "there is no probe $probe"
    ;;
esac
