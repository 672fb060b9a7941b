#!/bin/sh
# Probes that stay alive, or die oddly.
[ "$(id -u)" -ge 2000 ] && [ ! -e /sys ] && [ ! -e /etc/shadow ] && [ -e /app/sandbar.toml ] || exit 99

read -r probe

case $probe in
shell-daemon)
    setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' >/dev/null 2>&1 &
    (nohup sleep 300 >/dev/null 2>&1 &)
    sleep 300 &
    echo left
    ;;
shell-kills-all)
    kill -9 -1
    sleep 5
    ;;
shell-dies-oddly)
    kill -40 $$
    sleep 5
    ;;
*)
    echo "there is no probe $probe"
    ;;
esac
