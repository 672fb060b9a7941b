#!/usr/bin/env bash
# Runs all tests, those in Python too, however many fail, and ends with the totals.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || failed=1
make --no-print-directory model 2>&1 | tee -a "$log" || failed=1
make --no-print-directory miri 2>&1 | tee -a "$log" || failed=1
python3 -m unittest discover -s tests/examples 2>&1 | tee -a "$log" || failed=1

echo
awk '
    /^test result:/ { passed += $4; failed += $6; ignored += $8 }
    /^Ran [0-9]+ tests? in / { python += $2 }
    /SKIPPED/ { skipped += 1 }
    END {
        printf "Rust: %d passed, %d failed, %d ignored. Python: %d run. ", passed, failed, ignored, python
        printf "Said to be skipped: %d.\n", skipped
    }' "$log"
if [ "$failed" -ne 0 ]; then
    echo "FAILED; what failed is told above:"
    grep -E '^(test .* FAILED|(FAIL|ERROR): |error)' "$log"
fi
exit "$failed"
