#!/bin/sh
# Lets libFuzzer look for bytes that the CoAP door does not stand: one target after the other, SECONDS (60) each.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]
#   SANITIZER=address scripts/fuzz.sh 60 codec
#
# The compiler is the one that builds all else. These are the flags by which cargo-fuzz has it report which code an input reaches; none of
# them is a nightly's. A sanitizer's flag is, and the stable compiler takes it if RUSTC_BOOTSTRAP says so. It costs half the speed and
# more, and there is no unsafe code here for it to watch but in libraries.
#
# What is found is kept in target/fuzz-corpus, from which the next run goes on; an input that fails, in fuzz/artifacts. fuzz/corpus is only
# read.
set -eu

cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- codec options blocks exchanges
target=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')

flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
flags="$flags --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions"
built=$target/fuzz
if [ "${SANITIZER:-none}" != none ]; then
    flags="$flags -Zsanitizer=$SANITIZER"
    built=$built-$SANITIZER
    export RUSTC_BOOTSTRAP=1
fi

# With a target named, the flags are for it alone, not for what runs during the build.
RUSTFLAGS=$flags cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$built"

for name in "$@"; do
    found=$target/fuzz-corpus/$name
    mkdir -p "$found" "fuzz/artifacts/$name"
    echo "fuzz: $name, $seconds s"
    "$built/$host/release/$name" -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="fuzz/artifacts/$name/" "$found" "fuzz/corpus/$name"
done
