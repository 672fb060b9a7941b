"""Probes that take all there is of something."""

import array
import ctypes
import errno
import os
import socket
import sys
import time

import probing


def fork_bomb(tried, context):
    while True:
        try:
            os.fork()
        except OSError:
            pass


def memory(tried, context):
    held = []
    while True:
        held.append(bytearray(8 << 20))


def memory_of_children(tried, context):
    """Each is small enough; together they are not."""
    def child():
        held = b"x" * (12 << 20)
        while held:
            time.sleep(1)
    probing.leave(30, child)
    time.sleep(1)
    return "left"


def shared_memory(tried, context):
    import mmap
    held = []
    try:
        for number in range(64):
            fd = os.open(f"/dev/shm/{number}", os.O_CREAT | os.O_RDWR)
            os.posix_fallocate(fd, 0, 8 << 20)
            held.append(mmap.mmap(fd, 8 << 20))
            held[-1][:] = b"x" * (8 << 20)
    except OSError as error:
        tried.check(f"ended with {error}", error.errno in (errno.ENOSPC, errno.EFBIG))
    tried.check(f"{len(held) * 8} MiB", len(held) * 8 <= 32)


def inotify(tried, context):
    libc = ctypes.CDLL(None, use_errno=True)
    count = watches = 0
    while count < 100_000:
        fd = libc.inotify_init1(0)
        if fd < 0:
            break
        count += 1
        for place in ["/tmp", "/app", "/usr/bin", "/dev/shm", "/proc/self"]:
            watches += libc.inotify_add_watch(fd, place.encode(), 0xFFF) >= 0
    tried.check(f"{count} instances, {watches} watches", count < 1024)


def deep_recursion(tried, context):
    sys.setrecursionlimit(1 << 30)

    class Deep:
        def __repr__(self):
            return repr(self)

        def __getattr__(self, name):
            return getattr(self, name + "x")
    nested = ()
    for _ in range(2_000_000):
        nested = (nested,)
    return str(hash(nested))


def log_flood(tried, context):
    line = b"flood " * 200 + b"\n"
    while True:
        os.write(2, line)


def long_log_line(tried, context):
    for _ in range(64):
        os.write(2, b"\xff" * (64 << 10))
    tried.count += 64


def huge_answer(tried, context):
    return "x" * (40 << 20)


def huge_error(tried, context):
    raise probing.OnPurpose("x" * (20 << 20))


def descriptors_in_flight(tried, context):
    """Descriptors in messages that nobody receives, sockets among them."""
    sent = 0
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(100)]
    for left, right in pairs:
        left.setblocking(False)
        fds = array.array("i", [left.fileno(), right.fileno()] * 100)
        try:
            while sent < 1 << 20:
                left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                sent += len(fds)
        except OSError as error:
            tried.check(f"ended with {error}", error.errno in (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS))
    tried.check(f"{sent} descriptors in flight", sent <= 1 << 14)


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
