#!/bin/sh
# Installs what the build, the demo or the tests need and this host does not have. Quiet when nothing is to be done.
#
#   scripts/setup.sh build   a C compiler and linker, and Python for functions in Python
#   scripts/setup.sh test    what the tests drive Sandbar with as well: libcoap's client, aiocoap, strace
#   scripts/setup.sh cgroup2 what runs a virtual machine with control groups v2
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
what=${1:-build}

packages=
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}

need cc gcc
need make make
need python3 python3
[ -e /usr/include/stdio.h ] || packages="$packages libc6-dev"
if [ "$what" = test ]; then
    command -v coap-client >/dev/null 2>&1 || command -v coap-client-notls >/dev/null 2>&1 ||
        packages="$packages libcoap3-bin"
    need strace strace
    need curl curl
    need gawk gawk
    need original-awk original-awk
    need busybox busybox-static
    need skopeo skopeo
    need umoci umoci
    need zstd zstd
    # Debian's Python comes without the module that fills a virtual environment with pip.
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
fi

if [ "$what" = cgroup2 ]; then
    need qemu-system-x86_64 qemu-system-x86
    need busybox busybox
    need cpio cpio
    need strip binutils
fi

if [ -n "$packages" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: please install:$packages" >&2
        exit 1
    fi
    echo "setup: installing$packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: Rust 1.90 or later is needed: see https://rustup.rs" >&2
    exit 1
fi

if [ "$what" = test ]; then
    venv=${SANDBAR_TEST_VENV:-${CARGO_TARGET_DIR:-$root/target}/venv}
    if [ ! -x "$venv/bin/aiocoap-client" ]; then
        echo "setup: installing aiocoap into $venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check 'aiocoap==0.4.17'
    fi
fi
