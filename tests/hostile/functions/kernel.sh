#!/bin/sh
# Probes that go for privileges and the machine, with what the system has of tools.
[ "$(id -u)" -ge 2000 ] && [ ! -e /sys ] && [ ! -e /etc/shadow ] && [ -e /app/sandbar.toml ] || exit 99

read -r probe
gave_way=
tried=0

# Must fail.
refused() {
    tried=$((tried + 1))
    if "$@" >/dev/null 2>&1 </dev/null; then
        gave_way="$gave_way; $*"
    fi
}

case $probe in
shell-privileges)
    refused su -c id
    refused su root -c id
    refused sudo -n id
    refused chown root /tmp
    refused chgrp 1000 /tmp
    refused setpriv --reuid 0 id
    refused capsh --uid=0 --
    refused renice -n -20 -p 1
    refused chrt -f 1 true
    refused ionice -c 1 true
    refused prlimit --nofile=100000:100000 true
    refused sh -c 'ulimit -n 100000'
    refused sh -c 'ulimit -H -c unlimited'
    refused sh -c 'ulimit -s unlimited'
    refused sh -c 'ulimit -l unlimited'
    refused newgrp root
    refused passwd -d root
    refused sh -c 'echo -1000 >/proc/self/oom_score_adj'
    ;;
shell-machine)
    refused dmesg
    refused reboot -f
    refused poweroff -f
    refused insmod /tmp/x.ko
    refused modprobe loop
    refused sysctl -w kernel.hostname=hostile
    refused ip link add dummy0 type dummy
    refused ip link set lo down
    refused date -s 2020-01-01
    refused hwclock --set --date 2020-01-01
    refused strace -p 1
    refused gdb -p 1 -batch
    refused kill -9 1
    refused kill -STOP 1
    refused kill -9 2
    refused kill -9 3
    refused tee /dev/kmsg
    refused sh -c 'echo c >/proc/sysrq-trigger'
    refused iptables -L
    refused ps 1
    ;;
*)
    echo "there is no probe $probe"
    exit 0
    ;;
esac

if [ -n "$gave_way" ]; then echo "gave way: $gave_way"; else echo "held: $tried tried"; fi
