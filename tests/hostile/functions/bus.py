"""Probes that go for the application's message memory and for descriptors that are shared."""

import ctypes
import errno
import fcntl
import os
import random
import signal
import time

import probing
from probing import REFUSED

# The segment's descriptor is closed once the worker has mapped it; whoever wants it keeps it from the start.
SEGMENT = os.dup(3)


def mapping():
    with open("/proc/self/maps") as maps:
        line = next(line for line in maps if "/memfd:" in line and "rw-s" in line)
    start, end = line.split(" ")[0].split("-")
    return int(start, 16), int(end, 16) - int(start, 16)


def overwrite_by_address(tried, context):
    start, size = mapping()
    while True:
        ctypes.memset(start + random.randrange(size - 4096), random.randrange(256), random.randrange(4096))


def overwrite_by_file(tried, context):
    size = os.fstat(SEGMENT).st_size
    for at in range(0, size, 1 << 16):
        os.pwrite(SEGMENT, os.urandom(min(1 << 16, size - at)), at)
    time.sleep(10)


def wrong_descriptors(tried, context):
    """Through /proc, descriptors can be opened anew, with other rights."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        try:
            target = os.readlink(path)
        except OSError:
            continue
        if target.startswith("pipe:"):
            tried.refused(f"{target} opened to be read", lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        if target.startswith("socket:") or target.startswith("anon_inode:"):
            tried.refused(f"{target} opened anew", lambda: os.open(path, os.O_RDWR), REFUSED | {errno.ENXIO})
    tried.refused("a shorter segment", lambda: os.ftruncate(SEGMENT, 0))
    tried.refused("more seals", lambda: fcntl.fcntl(SEGMENT, 1033, 8))
    anew = os.open(f"/proc/self/fd/{SEGMENT}", os.O_RDWR)
    tried.refused("a longer segment, opened anew", lambda: os.ftruncate(anew, 1 << 40), REFUSED | {errno.EFBIG})
    tried.refused("a truncated segment, opened anew", lambda: os.open(f"/proc/self/fd/{SEGMENT}", os.O_RDWR | os.O_TRUNC))
    tried.refused("a link to the segment", lambda: os.link(f"/proc/self/fd/{SEGMENT}", "/tmp/segment", follow_symlinks=True), REFUSED | {errno.EXDEV})


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
