# The second step of the virtual machine: mounts what a host has, arranges the control groups as the kernel's command line
# says (`groups=unified`, `hybrid` or `split`), runs the checks and switches the machine off.
PATH=/bin:/sbin:/usr/bin:/usr/sbin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/shm && mount -t tmpfs -o mode=1777 shm /dev/shm
ip link set lo up
echo 3 >/proc/sys/kernel/printk
# Commands whose payload is not given would wait for it from the console.
exec </dev/null

v1() { # CONTROLLER…: a hierarchy of v1 each
    for controller in "$@"; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" "$controller" "/sys/fs/cgroup/$controller"
    done
}
arrangement=$(sed -n 's/.*groups=\([a-z]*\).*/\1/p' /proc/cmdline)
if [ "$arrangement" = unified ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 groups /sys/fs/cgroup
    case $arrangement in
        hybrid) v1 memory pids cpu,cpuacct freezer ;;
        split) v1 memory ;;
    esac
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
echo
echo "kernel $(uname -r), control groups: $arrangement"
if [ "$arrangement" = unified ]; then sh /tests/unified.sh; else sh /tests/v1.sh; fi
echo "finished $arrangement"
poweroff -f
