# Some controllers, or all, on v1: what does not need the files of v2.
. /tests/checks.sh

spinner_usec() {
    for group in $(groups_of spinner); do
        [ ! -e "$group/cpu.stat" ] || ! grep -q usage_usec "$group/cpu.stat" || key "$group/cpu.stat" usage_usec
        [ ! -e "$group/cpuacct.usage" ] || echo $(($(cat "$group/cpuacct.usage") / 1000))
    done
}

unit_tests
check 'an agent starts' serve
check 'applications are deployed' deploy_all
check 'memory beyond the limit: killed and told' memory_is_limited
check 'memory beyond the function'"'"'s own limit: told with both limits' memory_of_a_function_is_limited
check 'a sibling outlives it' a_sibling_outlives_it
check 'a fork bomb is held by its function'"'"'s limit, and a sibling answers' processes_are_limited divided/bomb divided/echo
check 'processor time is what was given, until the deadline' processor_time_is_limited spinner_usec
check 'removal takes all groups, those of functions too' the_rest_is_gone_after_removal
check 'what a killed agent left is swept at the next start' what_is_left_is_swept "$(groups_of hungry | head -n 1)"
check 'stopping leaves no group' stopping_leaves_nothing
