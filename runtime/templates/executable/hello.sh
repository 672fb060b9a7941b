#!/bin/sh
# Greets whoever the payload names. Runs once for each call: the payload is on standard input, the answer on standard
# output, the log on standard error. A status other than zero makes the call fail, with the log's last line as the reason.
set -eu

name=$(cat)
echo "greeting ${name:-world} (call $SANDBAR_CALL)" >&2
printf 'hello, %s\n' "${name:-world}"
