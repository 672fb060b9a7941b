#!/bin/sh
# Probes that go for files, with what the system has of tools.
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

write_to() { echo x >"$1"; }

case $probe in
shell-writes)
    for place in / /app /etc /usr/bin /usr/lib /sandbar /dev /proc/self /proc/sys/kernel; do
        refused write_to "$place/was-here"
        refused mkdir "$place/was-there"
        refused mkfifo "$place/pipe"
        refused ln -s /tmp "$place/link"
    done
    refused cp /usr/bin/env /usr/bin/sh
    refused rm -rf /app/probes.sh
    refused mv /app/sandbar.toml /app/gone
    refused chmod 777 /app
    refused touch /app/sandbar.toml
    refused sed -i s/x/y/ /etc/passwd
    ;;
shell-reads)
    for path in /etc/shadow /root/.bashrc /root/.ssh/id_rsa /proc/1/environ /proc/1/maps /proc/kcore /dev/mem /dev/kmsg /dev/sda /dev/vda; do
        refused cat "$path"
        refused dd if="$path" of=/dev/null bs=1 count=1
    done
    for path in /root/.ssh /home /var /run /sys /boot /proc/1/root /proc/1/fd; do
        refused ls "$path"
    done
    user=$(id -u)
    for process in /proc/[0-9]*; do
        tried=$((tried + 1))
        owner=$(stat -c %u "$process" 2>/dev/null || echo "$user")
        [ "$owner" = "$user" ] || gave_way="$gave_way; $process of user $owner is seen"
    done
    ;;
shell-mounts)
    mkdir -p /tmp/at
    for kind in tmpfs proc sysfs cgroup cgroup2 debugfs overlay devtmpfs bpf; do
        refused mount -t "$kind" none /tmp/at
    done
    refused mount --bind / /tmp/at
    refused mount -o remount,rw /
    refused mount -o remount,rw /app
    refused umount /proc
    refused umount -l /app
    refused chroot /tmp /bin/sh
    refused unshare -m true
    refused unshare -Ur true
    refused nsenter -t 1 -m true
    refused pivot_root /tmp /tmp/at
    refused losetup -f
    refused swapon /tmp/at
    refused mknod /tmp/device b 8 0
    ;;
*)
    echo "there is no probe $probe"
    exit 0
    ;;
esac

if [ -n "$gave_way" ]; then echo "gave way: $gave_way"; else echo "held: $tried tried"; fi
