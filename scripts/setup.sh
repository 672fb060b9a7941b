#!/bin/sh
# Installs what the build, the demo or the tests need and this host does not have. Quiet when nothing is to be done.
#
#   scripts/setup.sh build   a C compiler and linker, and Python for functions in Python
#   scripts/setup.sh test    what the tests drive Sandbar with as well: libcoap's client, aiocoap, strace
#   scripts/setup.sh fuzz    a C++ compiler, for libFuzzer
#   scripts/setup.sh bench   the peers that Sandbar is measured beside; what cannot be had is told, and no error
#   scripts/setup.sh cgroup2 what runs a virtual machine with control groups v2
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
what=${1:-build}

packages=
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}

# What the bench can do without: servers are root's, and not on everyone's path.
peers=
want() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || peers="$peers $2"
}

need cc gcc
need make make
need python3 python3
[ -e /usr/include/stdio.h ] || packages="$packages libc6-dev"
if [ "$what" = test ]; then
    command -v coap-client >/dev/null 2>&1 || command -v coap-client-notls >/dev/null 2>&1 ||
        packages="$packages libcoap3-bin"
    need ip iproute2
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

if [ "$what" = fuzz ]; then
    need c++ g++
fi

if [ "$what" = bench ]; then
    want bwrap bubblewrap
    want crun crun
    want lighttpd lighttpd
    want nats-server nats-server
    python3 -c 'import ensurepip, venv' 2>/dev/null || peers="$peers python3-venv"
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

if [ -n "$peers" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: to measure Sandbar beside all peers, install:$peers" >&2
    else
        echo "setup: installing$peers"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq || echo "setup: the lists of packages could not be fetched" >&2
        for package in $peers; do
            if ! apt-get install -y -qq --no-install-recommends "$package" >/dev/null; then
                echo "setup: $package could not be installed: the bench will skip what needs it" >&2
            # Debian starts a server as soon as it is installed; the bench starts its own.
            elif [ -d /run/systemd/system ] && systemctl cat "$package.service" >/dev/null 2>&1; then
                systemctl disable --quiet --now "$package.service" || echo "setup: $package.service is left running" >&2
            fi
        done
    fi
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: Rust 1.90 or later is needed: see https://rustup.rs" >&2
    exit 1
fi

if [ "$what" = test ]; then
    venv=${SANDBAR_TEST_VENV:-${CARGO_TARGET_DIR:-$root/target}/venv}
    # Run, not looked for: an environment that was moved along with the target directory has no interpreter any more.
    if ! "$venv/bin/aiocoap-client" --help >/dev/null 2>&1; then
        echo "setup: installing aiocoap into $venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check 'aiocoap==0.4.17'
    fi
fi

if [ "$what" = bench ]; then
    venv=${CARGO_TARGET_DIR:-$root/target}/bench-venv
    if ! "$venv/bin/functions-framework" --help >/dev/null 2>&1; then
        echo "setup: installing functions-framework into $venv"
        if ! { python3 -m venv --clear "$venv" &&
            "$venv/bin/pip" install --quiet --disable-pip-version-check 'functions-framework==3.10.2'; }; then
            echo "setup: functions-framework could not be installed: the bench will skip it" >&2
        fi
    fi
fi
