"""Functions that go wrong on purpose, each in one way. See README.md for what the caller gets."""

import json
import os
import signal
import time

JSON = 50
MEBIBYTE = 1 << 20
LARGE_BYTES = 2 * MEBIBYTE
CHILDREN_DEFAULT = 3
CHILDREN_MAX = 16
# Where no limit stops it, `hungry` stops by itself before it takes the machine down.
HUNGRY_BYTES_MAX = 1024 * MEBIBYTE
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


class OnPurpose(Exception):
    """A failure that was asked for."""


def raise_error(event, context):
    raise OnPurpose(f"raised on purpose, with {len(event)} bytes in hand")


def never_answer(event, context):
    while True:
        pass


def answer_slowly(event, context):
    milliseconds = _count(event, 1_000)
    time.sleep(milliseconds / 1_000)
    return f"{milliseconds}"


def answer_too_much(event, context):
    return b"x" * LARGE_BYTES


def leave_children(event, context):
    """Answers the pids, as seen in the sandbox, of processes that outlive the answer if they can."""
    children = _count(event, CHILDREN_DEFAULT)
    if children > CHILDREN_MAX:
        raise ValueError(f"{children} children; at most {CHILDREN_MAX}")
    context.set_content_format(JSON)
    return json.dumps({"pids": [_leave_child() for _ in range(children)]})


def _leave_child():
    """Starts a process as daemons do: its parent is gone, its session is its own."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        # Whatever happens here, only the instance itself may return to its caller.
        try:
            os.setsid()
            child = os.fork()
            if child == 0:
                _sleep_for_ever()
            os.write(writing, str(child).encode())
        finally:
            os._exit(0)
    os.waitpid(middle, 0)
    os.close(writing)
    child = os.read(reading, 32)
    os.close(reading)
    if not child:
        raise OnPurpose("the sandbox has no room for another process")
    return int(child)


def _sleep_for_ever():
    # Neither a polite signal nor an exception on the way may lead back into the instance's code, and
    # all inherited descriptors stay open: that is what a careless daemon does to its parent.
    try:
        for polite in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(polite, signal.SIG_IGN)
        while True:
            time.sleep(3_600)
    finally:
        os._exit(1)


def eat_memory(event, context):
    eaten = []
    while len(eaten) * MEBIBYTE < HUNGRY_BYTES_MAX:
        # Written to, so that the kernel has to give the pages and not only promise them.
        eaten.append(b"x" * MEBIBYTE)
    return f"{len(eaten)} MiB eaten and still alive: no memory limit is in force"


def list_namespaces(event, context):
    """Answers which namespaces the function is in, as `{"pid": "pid:[4026531836]", …}`."""
    context.set_content_format(JSON)
    return json.dumps({name: _namespace(name) for name in NAMESPACES})


def _namespace(name):
    path = f"/proc/self/ns/{name}"
    try:
        return os.readlink(path)
    except OSError as unreadable:
        # A /proc that hides links may still let them be followed.
        try:
            return f"{name}:[{os.stat(path).st_ino}]"
        except OSError:
            return f"unreadable: {unreadable.strerror}"


def _count(event, default):
    """The number in the payload, or `default` where it is empty."""
    text = event.decode("ascii", "replace").strip()
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"the payload must be a number, not {text[:20]!a}")
    return int(text)
