#!/bin/sh
# Probes that take all there is of something.
[ "$(id -u)" -ge 2000 ] && [ ! -e /sys ] && [ ! -e /etc/shadow ] && [ -e /app/sandbar.toml ] || exit 99

read -r probe

case $probe in
shell-fork-bomb)
    bomb() { bomb | bomb & }
    bomb
    while :; do sleep 1; done
    ;;
shell-endless-output)
    yes flood
    ;;
shell-endless-errors)
    yes flood >&2
    ;;
shell-memory)
    dd if=/dev/zero of=/dev/null bs=512M count=1 2>/dev/null
    head -c 512M /dev/zero | tail -c 500M | wc -c
    ;;
*)
    echo "there is no probe $probe"
    ;;
esac
