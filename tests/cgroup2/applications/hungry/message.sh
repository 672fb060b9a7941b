#!/bin/sh
# Answers 4 MiB.
exec head -c 4194304 /dev/zero
