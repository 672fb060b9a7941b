#!/bin/sh
# Fails as a shell script fails: a line for people on stderr, and an exit code that is not zero. It
# does not read its event either.
echo "shell: about to fail" >&2
echo "shell: failed on purpose, exit code 3" >&2
exit 3
