#!/bin/sh
# Answers the device: is every smoothed reading within the bounds of thresholds.txt?
#
# stdin: the summary that `average` made, a JSON array with an object per sensor.
# stdout: {"state":"ok"|"alarm","checked":N,"unwatched":N,"alarms":[…]}.
set -eu

# Numbers are written with a point, whatever the host's locale says.
LC_ALL=C
export LC_ALL

bundle=${0%/*}
rules=$bundle/thresholds.txt
if [ ! -r "$rules" ]; then
    echo "alarm: cannot read $rules" >&2
    exit 1
fi

# `awk` is often a link through /etc/alternatives, which a sandbox need not have; the programs
# behind it are tried by their own names as well.
for awk in awk mawk gawk original-awk busybox; do
    if command -v "$awk" >/dev/null 2>&1; then
        [ "$awk" != busybox ] || set -- awk
        exec "$awk" "$@" -f "$bundle/alarm.awk" reading=rules "$rules" reading=summary -
    fi
done
echo "alarm: no awk found in PATH=$PATH" >&2
exit 1
