#!/usr/bin/env bash
# Shows the limits at work where they are most hosts': on control groups v2, under Debian's kernel, in a virtual machine. What
# runs in it is tests/cgroup2; what it says on its console is printed here, and counted.
#
# The machine has no disk and no network: a busybox, the command, two applications, and the unit tests of control groups.
# SANDBAR_TESTS_MUST_RUN=1 makes a machine that cannot be had a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cache=$target/cgroup2
boot_seconds_max=170
# For swap in memory, and for a disk.
modules="lzo-rle zsmalloc zram virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk"
mkdir -p "$cache"

skip() { # REASON
    if [ "${SANDBAR_TESTS_MUST_RUN:-}" = 1 ]; then
        echo "FAILED: no virtual machine: $1" >&2
        exit 1
    fi
    echo "SKIPPED: no virtual machine: $1"
    exit 0
}

# The newest kernel for virtual machines that the package lists know, taken out of its package and not installed.
fetch_kernel() {
    compgen -G "$cache/kernel/boot/vmlinuz-*" >/dev/null && return
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$package" ] || return 1
    echo "cgroup2: fetching $package"
    rm -rf "$cache/kernel" "$cache/download"
    mkdir -p "$cache/download"
    (cd "$cache/download" && apt-get download -qq "$package" 2>/dev/null) || return 1
    dpkg-deb -x "$cache"/download/*.deb "$cache/kernel" || return 1
    rm -rf "$cache/download"
}

# The shared libraries of a program, to the places where it looks for them; a static one has none.
copy_libraries() { # PROGRAM ROOT
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
        [ -e "$2$library" ] || install -D "$(realpath "$library")" "$2$library"
    done
}

build_root() { # ROOT
    local root=$1 tests
    rm -rf "$root"
    mkdir -p "$root/bin"
    cargo build --locked --quiet -p sandbar -p failures
    tests=$(cargo test --locked --quiet -p sandbar-runtime --lib --no-run --message-format=json |
        grep -o '"executable":"[^"]*"' | tail -n 1 | cut -d '"' -f 4)
    install "$(command -v busybox)" "$root/bin/busybox"
    cp -a tests/cgroup2 "$root/tests"
    mv "$root/tests/init" "$root/init"
    strip -o "$root/bin/sandbar" "$target/debug/sandbar"
    strip -o "$root/bin/runtime-tests" "$tests"
    for application in hungry divided; do # those with native functions
        mkdir -p "$root/tests/applications/$application/bin"
        strip -o "$root/tests/applications/$application/bin/failures" "$target/debug/failures"
    done
    for program in busybox sandbar runtime-tests; do
        copy_libraries "$root/bin/$program" "$root"
    done
    mkdir "$root/modules"
    for module in $modules; do
        find "$cache/kernel/lib/modules" -name "$module.ko" -exec cp {} "$root/modules" \;
    done
    cp packaging/sandbar.service "$root/tests"
}

# A disk with the least of Debian that has systemd, for the arrangement of that name.
build_disk() { # IMAGE
    [ -e "$1" ] && return
    echo "cgroup2: making a disk with Debian's systemd"
    local debian=$cache/debian
    rm -rf "$debian" "$1.new"
    debootstrap --variant=minbase --include=systemd,systemd-sysv bookworm "$debian" >"$cache/debootstrap.log" 2>&1 || return 1
    rm -rf "$debian"/var/cache/apt/* "$debian"/var/lib/apt/lists/* "$debian"/usr/share/{doc,man,locale}/*
    # A machine that was set up already asks nothing at its first start.
    echo uninitialized-is-over | md5sum | cut -c 1-32 >"$debian/etc/machine-id"
    mke2fs -q -t ext4 -d "$debian" "$1.new" 512M && mv "$1.new" "$1"
    rm -rf "$debian"
}

boot() { # ARRANGEMENT LOG
    local disk=()
    [ "$1" != systemd ] || disk=(-drive "file=$cache/debian.ext4,format=raw,if=virtio,snapshot=on")
    timeout "$boot_seconds_max" qemu-system-x86_64 -machine accel=tcg -cpu max -smp 2 -m 768 -nodefaults -nographic \
        -serial stdio -no-reboot -kernel "$(echo "$cache"/kernel/boot/vmlinuz-*)" -initrd "$cache/root.cpio" \
        -append "console=ttyS0 quiet panic=-1 groups=$1" "${disk[@]}" </dev/null 2>&1 | tr -d '\r' >"$2" || true
}

[ "$(uname -m)" = x86_64 ] || skip "it is made for x86-64"
sh scripts/setup.sh cgroup2 || skip "see above"
fetch_kernel || skip "Debian's package linux-image-cloud-amd64 cannot be had"

root=$cache/root
build_root "$root"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$cache/root.cpio"

arrangements=${ARRANGEMENTS:-unified systemd hybrid split}
case " $arrangements " in
    *" systemd "*)
        if ! build_disk "$cache/debian.ext4"; then
            [ "${SANDBAR_TESTS_MUST_RUN:-}" != 1 ] || skip "Debian's systemd cannot be had; see $cache/debootstrap.log"
            echo "SKIPPED: systemd: its packages cannot be had; see $cache/debootstrap.log"
            arrangements=${arrangements/systemd/}
        fi
        ;;
esac

# Two machines at a time: they mostly wait.
for arrangement in $arrangements; do
    [ "$(jobs -rp | wc -l)" -lt 2 ] || wait -n
    boot "$arrangement" "$cache/$arrangement.log" &
done
wait

passed=0
failed=0
for arrangement in $arrangements; do
    log=$cache/$arrangement.log
    echo "$arrangement:"
    grep -aE '^(kernel|ok|FAILED) ' "$log" || true
    passed=$((passed + $(grep -acE '^ok ' "$log" || true)))
    failed=$((failed + $(grep -acE '^FAILED ' "$log" || true)))
    if ! grep -aq "^finished $arrangement" "$log"; then
        echo "FAILED the machine did not finish; the end of $log:"
        tail -n 20 "$log"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
