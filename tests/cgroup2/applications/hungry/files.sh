#!/bin/sh
# Fills temporary files with as many KiB as the event says, and stays a while.
read -r kibibytes
head -c "${kibibytes}k" /dev/zero >/tmp/file || exit 1
echo written >&2
sleep 2
