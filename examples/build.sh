#!/bin/sh
# Builds the native functions of the examples and puts each into the bin/ folder of its bundle,
# where the manifest looks for it. CARGO_TARGET_DIR is honoured.
set -eu

root=$(dirname "$0")/..
cargo build --release --locked --manifest-path "$root/Cargo.toml" \
    -p thermostat-average -p gallery -p failures -p chain

built=${CARGO_TARGET_DIR:-$root/target}/release
while read -r executable destination; do
    install -D -m 755 "$built/$executable" "$root/examples/$destination"
done <<EOF
thermostat-average thermostat/bin/average
gallery gallery/bin/gallery
failures failures/bin/failures
chain chain/bin/chain
EOF

# A picture of more than a megabyte, to be sent to the gallery.
picture=$root/examples/pictures/scene.jpg
if [ ! -e "$picture" ]; then
    mkdir -p "$root/examples/pictures"
    "$built/make-picture" 1048576 "$picture"
fi
