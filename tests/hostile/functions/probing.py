"""What the probes in Python share: the guard, the record of what was tried, and system calls by number."""

import ctypes
import errno
import os
import traceback

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

# What a refusal may look like.
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSYS, errno.ESRCH}


def inside(lowest_user=2000):
    """Whether this is a sandbox: a user that no host has, a root without /sys, and the application's own manifest."""
    return (
        os.getuid() >= lowest_user
        and not os.path.exists("/sys")
        and not os.path.exists("/etc/shadow")
        and os.path.exists("/app/sandbar.toml")
        and "SANDBAR_FUNCTION" in os.environ
    )


def syscall(number, *arguments):
    """A system call by its number; raises OSError."""
    converted = [ctypes.c_long(it) if isinstance(it, int) else it for it in arguments]
    ctypes.set_errno(0)
    result = _LIBC.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class OnPurpose(Exception):
    """A probe's own way to fail."""


class Tried:
    """What a probe has tried, and what of it was not refused."""

    def __init__(self, words):
        self.words = words
        self.count = 0
        self.gave_way = []
        self.note = ""

    def refused(self, what, act, errnos=REFUSED):
        """Tries something that must be refused, with one of these errors."""
        self.count += 1
        try:
            result = act()
        except OSError as error:
            if error.errno not in errnos:
                self.gave_way.append(f"{what}: {errno.errorcode.get(error.errno, error.errno)}")
        else:
            self.gave_way.append(f"{what}: {str(result)[:80]!r}")

    def check(self, what, holds):
        """Something that must be so."""
        self.count += 1
        if not holds:
            self.gave_way.append(what)

    def answer(self):
        if self.gave_way:
            return f"gave way: {len(self.gave_way)} of {self.count}: " + "; ".join(self.gave_way[:20])
        if self.count == 0:
            return "the probe tried nothing"
        return f"held: {self.count} tried {self.note}"


def run(event, context, probes):
    """Runs the probe that the event names."""
    if not inside():
        return "this is no sandbox"
    name, *lines = event.decode().splitlines()
    tried = Tried(dict(line.split("=", 1) for line in lines))
    probe = probes.get(name.replace("-", "_"))
    if probe is None:
        return f"there is no probe {name}"
    try:
        output = probe(tried, context)
    except (MemoryError, OnPurpose):
        raise
    except Exception as error:
        traceback.print_exc()
        return f"the probe itself failed: {type(error).__name__}: {error}"
    return tried.answer() if output is None else output


def write_to(path, mode="w"):
    with open(path, mode) as file:
        file.write("x")
    return "written"


def read_from(path):
    with open(path, "rb") as file:
        return file.read(64)


def leave(times, act):
    """Forks children that do something and never come back; their ids."""
    pids = []
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            try:
                act()
            finally:
                os._exit(0)
        pids.append(pid)
    return pids
