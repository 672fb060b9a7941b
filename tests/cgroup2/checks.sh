# What the checks of all arrangements have in common. A check is a command that prints why it fails.
export SANDBAR_SOCKET=/run/sandbar.sock
groups=/sys/fs/cgroup
agent=

check() { # NAME COMMAND…
    name=$1
    shift
    # Not in a subshell: what it sets, such as the agent's process id, is for later checks.
    if "$@" >/run/said 2>&1; then
        echo "ok $name"
    else
        echo "FAILED $name: $(tail -n 12 /run/said | tr -d '\000' | tr '\n' ' ')"
    fi
}

says() { # TEXT COMMAND…: the command's output has the text
    text=$1
    shift
    heard=$("$@" 2>&1 | tr -d '\000' | tail -c 500)
    case $heard in
        *"$text"*) ;;
        *)
            echo "wanted \"$text\", heard \"$heard\""
            return 1
            ;;
    esac
}

between() { # LEAST NUMBER MOST
    [ "$2" -ge "$1" ] && [ "$2" -le "$3" ] || {
        echo "wanted $1 to $3, found $2"
        return 1
    }
}

within() { # TENTHS COMMAND…: until the command succeeds
    tenths=$1
    shift
    while ! "$@" >/run/within 2>&1; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || {
            echo "not in time: $*: $(cat /run/within)"
            return 1
        }
        sleep 0.1
    done
}

key() { # FILE KEY: its number
    awk -v key="$2" '$1 == key { print $2 }' "$1"
}

hundredths() { # since the machine started
    tr -d . </proc/uptime | cut -d ' ' -f 1
}

# --- the agent ---

serve() { # [GROUP]: waits for the doors
    : >/run/serve.out
    (
        [ -z "${1:-}" ] || echo 0 >"$1/cgroup.procs"
        exec sandbar serve --state /var/sandbar --coap 127.0.0.1:0 >/run/serve.out 2>/run/serve.log
    ) &
    agent=$!
    within 300 grep -q ready /run/serve.out || {
        cat /run/serve.log
        return 1
    }
}

stop() {
    kill -TERM "$agent"
    wait "$agent"
}

deploy_all() {
    for application in hungry divided spinner; do
        says deployed sandbar deploy /tests/applications/$application || return
    done
}

groups_of() { # APPLICATION
    find $groups -type d -path "*/sandbar-*/$1-[0-9]*"
}

no_groups_of() { # APPLICATION
    left=$(groups_of "$1")
    [ -z "$left" ] || {
        echo "left: $left"
        return 1
    }
}

no_groups() {
    left=$(find $groups -type d -name 'sandbar-*')
    [ -z "$left" ] || {
        echo "left: $left"
        return 1
    }
}

# --- limits that are exceeded: the same on all arrangements ---

memory_is_limited() {
    swapped=$(key /proc/vmstat pswpout)
    says 'failed: memory: out of memory: the application'"'"'s limit is 48 MiB' sandbar invoke hungry/memory || return
    [ "$(key /proc/vmstat pswpout)" = "$swapped" ] || {
        echo 'memory went to swap instead'
        return 1
    }
    says alive sandbar invoke hungry/echo alive
}

memory_of_a_function_is_limited() {
    says 'out of memory: the function'"'"'s limit is 24 MiB, the application'"'"'s 96 MiB' \
        sandbar invoke divided/memory || return
    says alive sandbar invoke divided/echo alive
}

a_sibling_outlives_it() {
    sandbar invoke divided/wait >/run/sibling 2>&1 &
    sibling=$!
    sleep 0.5
    says 'out of memory' sandbar invoke divided/memory || return
    wait $sibling
    says waited cat /run/sibling
}

processes_are_limited() { # FUNCTION SIBLING
    sandbar invoke "$1" >/run/bomb 2>&1 &
    bomb=$!
    sleep 2
    says alive sandbar invoke "$2" alive || return
    kill -0 $bomb || {
        echo 'the bomb had ended before'
        return 1
    }
    wait $bomb
    says 'deadline passed' cat /run/bomb || return
    within 50 says alive sandbar invoke "${1%/*}/echo" alive
}

# A fifth of a processor, measured over two seconds of a loop without end.
processor_time_is_limited() { # COMMAND: prints the time used so far, in microseconds
    sandbar invoke spinner/spin >/run/spin 2>&1 &
    spin=$!
    sleep 0.5
    used=$("$@")
    start=$(hundredths)
    sleep 2
    used=$(($("$@") - used))
    took=$(($(hundredths) - start))
    wait $spin
    echo "used $used us in $took hundredths"
    between 14 $((used / (took * 100))) 24 && says 'deadline passed: spin: no answer within 4000 ms' cat /run/spin
}

a_crash_is_told() {
    says 'killed by signal 6 (SIGABRT)' sandbar invoke hungry/crash
}

the_rest_is_gone_after_removal() {
    [ -n "$(groups_of divided)" ] || return
    sandbar remove divided
    within 50 no_groups_of divided
}

stopping_leaves_nothing() {
    stop || {
        echo "status $?"
        return 1
    }
    no_groups
}

# Something that an agent which was killed has left is ended by the next one, and applications are back.
what_is_left_is_swept() { # GROUP: a sandbox's, in which a process may be put
    old=$(stat -c %i "$1")
    kill -KILL "$agent"
    wait "$agent"
    sleep 60 &
    left=$!
    echo $left >"$1/cgroup.procs" || return
    serve || return
    wait $left
    between 137 $? 137 || return
    says 'cleared away what was left' cat /run/serve.log || return
    for group in $(groups_of hungry); do
        [ "$(stat -c %i "$group")" != "$old" ] || {
            echo "$group is the old one"
            return 1
        }
    done
    says alive sandbar invoke hungry/echo alive
}

# The unit tests of control groups, none of which may be skipped here.
unit_tests() {
    runtime-tests cgroup::tests --test-threads=1 --nocapture >/run/unit 2>&1
    awk '
        /^test cgroup::/ { name = $2 }
        /SKIPPED/ { print "FAILED unit test " name " was skipped" }
        /panicked at/ { print "FAILED unit test " name ": " $0 }
        /^test cgroup::.* ok$/ || /^ok$/ { print "ok unit test " name }
    ' /run/unit
    grep -q '^test result: ok. [1-9]' /run/unit || echo "FAILED unit tests: $(tail -n 5 /run/unit | tr '\n' ' ')"
}
