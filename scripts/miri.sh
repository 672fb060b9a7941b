#!/usr/bin/env bash
# Runs the bus's unit tests under Miri: those that need no shared memory of the system's, which Miri does not have.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1 || ! rustup +nightly component list 2>/dev/null | grep -q '^rust-src (installed)'; then
    echo "SKIPPED: Miri is not installed (rustup toolchain install nightly --component miri,rust-src)"
    exit 0
fi
echo "Miri: queue, pool, waiters, bell, message, layout"
target=${CARGO_TARGET_DIR:-target}/miri
MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test --locked -p sandbar-bus --lib --target-dir "$target" -- \
    queue::tests pool::tests waiters::tests message::tests layout::tests bell::tests::who bell::tests::a_ring
