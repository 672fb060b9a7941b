# Debian's systemd, and the agent as the service that packaging/sandbar.service says.
. /tests/checks.sh
export SANDBAR_SOCKET=/run/sandbar/sandbar.sock
echo
echo "kernel $(uname -r), $(systemctl --version | head -n 1)"

main_pid() {
    systemctl show --property=MainPID --value sandbar
}

starts() {
    systemctl start sandbar || {
        journalctl --no-pager -u sandbar | tail -n 10
        return 1
    }
    says active systemctl is-active sandbar
}

moved_to_a_leaf() {
    says /system.slice/sandbar.service/agent cat "/proc/$(main_pid)/cgroup"
}

deploys_from_a_private_home() {
    mkdir -p /home/somebody
    cp -a /tests/applications/hungry /tests/applications/divided /home/somebody/
    chown -R 1000:1000 /home/somebody
    chmod 700 /home/somebody
    for application in hungry divided; do
        says deployed sandbar deploy /home/somebody/$application || return
    done
}

groups_are_the_services() {
    for group in $(groups_of hungry) $(groups_of divided); do
        case $group in
            /sys/fs/cgroup/system.slice/sandbar.service/sandbar-*) ;;
            *)
                echo "$group"
                return 1
                ;;
        esac
    done
}

# As the unit says: privileges, and a file system that cannot be written.
is_confined() {
    status=/proc/$(main_pid)/status
    says 00000000012010c4 grep CapBnd "$status" || return
    says 1 grep NoNewPrivs "$status" && says 2 grep Seccomp: "$status" || return
    says 'Read-only file system' nsenter -t "$(main_pid)" -m touch /etc/sandbar-was-here
}

is_active_still() {
    says active systemctl is-active sandbar && says 0 systemctl show --property=NRestarts --value sandbar
}

cannot_be_put_behind_the_host() { # what an instance can do about the order in which the kernel kills
    says 'Permission denied' sandbar invoke hungry/order
}

# Under the unit's filter and file system: the call is stored before it is made.
answers_later() {
    location=$(sandbar invoke hungry/echo kept --async) || return
    says kept sandbar calls answer "$location" --wait 20s
}

comes_back() {
    kill -KILL "$(main_pid)"
    within 100 says 1 systemctl show --property=NRestarts --value sandbar || return
    within 200 says alive sandbar invoke hungry/echo alive || return
    says kept sandbar calls answer "$location"
}

stops() {
    systemctl stop sandbar
    says inactive systemctl is-active sandbar || return
    says success systemctl show --property=Result --value sandbar || return
    [ ! -e /sys/fs/cgroup/system.slice/sandbar.service ] || {
        echo 'its group is there'
        return 1
    }
}

check 'the service starts' starts
check 'the agent has moved to a group of its own' moved_to_a_leaf
check 'it deploys from a home that is its owner'"'"'s alone' deploys_from_a_private_home
check 'sandboxes are in the service'"'"'s groups' groups_are_the_services
check 'it has the privileges that the unit gives, and no others' is_confined
check 'memory beyond the limit: killed, told, and not swapped' memory_is_limited
check 'memory beyond the function'"'"'s own limit: told with both limits' memory_of_a_function_is_limited
check 'a fork bomb is held by its function'"'"'s limit, and a sibling answers' processes_are_limited divided/bomb divided/echo
check 'a crash is told by its signal' a_crash_is_told
check 'a function cannot put itself behind the host when memory is short' cannot_be_put_behind_the_host
check 'the service is none the worse' is_active_still
check 'removal takes all groups, those of functions too' the_rest_is_gone_after_removal
check 'a call that nobody waits for is answered' answers_later
check 'an agent that is killed comes back, with its applications and accepted calls' comes_back
check 'it stops, and leaves no group' stops
echo "finished systemd"
