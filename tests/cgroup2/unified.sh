# All controllers on v2, as most hosts have them.
. /tests/checks.sh

# Memory that may be swapped out, if the limits let it.
for module in lzo-rle zsmalloc zram; do insmod /modules/$module.ko; done
echo 67108864 >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null && swapon /dev/zram0
check 'the machine has swap' grep -q zram0 /proc/swaps

# Counts writes to cgroup.kill, by anybody.
mount -t tracefs tracefs /sys/kernel/tracing
echo 'p:killed cgroup_kill_write' >/sys/kernel/tracing/kprobe_events
echo 1 >/sys/kernel/tracing/events/kprobes/killed/enable
kills() { grep -c 'killed:' /sys/kernel/tracing/trace; }

unit_tests
check 'cgroup.kill is what kills' between 1 "$(kills)" 1000

sandbox_file() { # APPLICATION FILE
    echo "$(groups_of "$1" | head -n 1)/$2"
}

controllers_are_handed_down() {
    for group in $groups "$(find $groups -type d -name 'sandbar-*')" "$(groups_of divided | head -n 1)"; do
        for controller in cpu memory pids; do
            says $controller cat "$group/cgroup.subtree_control" || return
        done
    done
    says 50331648 cat "$(sandbox_file hungry memory.max)" && says 0 cat "$(sandbox_file hungry memory.swap.max)"
}

temporary_files_count() {
    before=$(key "$(sandbox_file hungry memory.stat)" shmem)
    sandbar invoke hungry/files 8192 &
    sleep 1
    grown=$(($(key "$(sandbox_file hungry memory.stat)" shmem) - before))
    wait $!
    between 8388608 $grown 12582912
}

messages_count() {
    before=$(key "$(sandbox_file hungry memory.stat)" shmem)
    between 4194304 "$(sandbar invoke hungry/message | wc -c)" 4194304 || return
    grown=$(($(key "$(sandbox_file hungry memory.stat)" shmem) - before))
    between 4194304 $grown 6291456
}

the_kernel_counted_refused_forks() {
    between 1 "$(key "$(sandbox_file hungry pids.events)" max)" 1000000
}

spinner_usec() {
    key "$(sandbox_file spinner cpu.stat)" usage_usec
}

rounds() { # GROUP: all checks of limits, the agent being in it, if given
    check 'an agent starts' serve "$@"
    check 'applications are deployed' deploy_all
    check 'memory beyond the limit: killed, told, and not swapped' memory_is_limited
    check 'memory beyond the function'"'"'s own limit: told with both limits' memory_of_a_function_is_limited
}

rounds
check 'controllers are handed down, with limits of memory and none of swap' controllers_are_handed_down
check 'a sibling outlives it' a_sibling_outlives_it
check 'temporary files count as memory' temporary_files_count
check 'messages count as memory' messages_count
check 'a fork bomb is held, and another application answers' processes_are_limited hungry/bomb divided/echo
check 'a fork bomb is held by its function'"'"'s limit, and a sibling answers' processes_are_limited divided/bomb divided/echo
check 'forks were refused by the kernel' the_kernel_counted_refused_forks
check 'processor time is what was given, until the deadline' processor_time_is_limited spinner_usec
check 'a crash is told by its signal' a_crash_is_told
check 'removal takes all groups, those of functions too' the_rest_is_gone_after_removal
before=$(kills)
check 'what a killed agent left is swept at the next start' what_is_left_is_swept "$(groups_of hungry | head -n 1)"
check 'by cgroup.kill' between $((before + 1)) "$(kills)" 1000
check 'stopping leaves no group' stopping_leaves_nothing

# A subtree that a service manager has delegated, the agent in a group of its own in it.
mkdir -p $groups/service/agent
echo '+cpu +memory +pids' >$groups/cgroup.subtree_control
rounds $groups/service/agent
only_in_the_subtree() {
    find $groups -maxdepth 1 -name 'sandbar-*' | grep . && return 1
    find $groups/service -maxdepth 1 -name 'sandbar-*' | grep -q .
}
check 'all groups are in the delegated subtree' only_in_the_subtree
check 'stopping leaves no group in the subtree' stopping_leaves_nothing

# The subtree has a process of somebody else's, so that it can hand no controller down.
echo '-cpu -memory -pids' >$groups/service/cgroup.subtree_control
sleep 60 &
stranger=$!
echo $stranger >$groups/service/cgroup.procs
refused_at_start() {
    ! serve $groups/service/agent >/dev/null || {
        stop
        echo 'it started'
        return 1
    }
    says 'holds processes, so that it cannot hand its controllers to sandboxes' cat /run/serve.log
}
check 'a base with processes in it is refused at the start, with what to do' refused_at_start
kill $stranger
