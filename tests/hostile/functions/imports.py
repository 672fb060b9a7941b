"""Code that is hostile when it is loaded. What it does is in the file `kind` beside it."""

import os
import signal
import sys
import threading
import time

sys.path.insert(0, "/app")

import probing


def stay():
    while True:
        time.sleep(60)


def leave(act):
    """A process that nobody is the parent of."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                act()
            finally:
                os._exit(0)
        os._exit(0)
    os.wait()


def for_a_while(act, seconds=1.0):
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        act()


def fork_on():
    try:
        os.fork()
    except OSError:
        pass


def exits():
    os._exit(3)


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_by_an_odd_signal():
    os.kill(os.getpid(), 40)


def raises():
    raise RuntimeError("\x1b[31mraised\r\nat\0import")


def forks():
    for_a_while(fork_on)
    raise RuntimeError("forked enough")


def takes_memory():
    held = []
    while True:
        held.append(bytearray(8 << 20))


def prints():
    for_a_while(lambda: print("flood" * 1000))
    raise RuntimeError("printed enough")


def has_threads():
    threading.Thread(target=stay, daemon=True).start()


def closes_descriptors():
    os.closerange(3, 64)


def has_nobody_to_tell():
    os.closerange(0, 64)
    os._exit(1)


def fills_its_report():
    os.write(6, b"x" * 60_000)
    os._exit(0)


def becomes_another():
    os.execv("/bin/true", ["true"])


def takes_users():
    """Its capability to change its user is for instances alone."""
    for user in [0, 1, 999, 1000, 1001, 1002, 1999]:
        for ids in [(user, user, user), (user, -1, -1), (-1, user, -1), (-1, -1, user)]:
            if user != os.getuid():
                for change in [os.setresuid, os.setresgid]:
                    try:
                        change(*ids)
                    except OSError:
                        continue
                    raise RuntimeError(f"became {ids} by {change.__name__}")
    try:
        os.setgroups([0])
    except OSError:
        raise RuntimeError("held: no other user")
    raise RuntimeError("became a member of a group")


def leaves_processes():
    for _ in range(3):
        leave(stay)


def leaves_processes_of_others():
    """Processes that have become users that no slot has, as its capability lets them."""
    def become(user):
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        stay()
    for user in [2500, 50_000, 65_535]:
        leave(lambda: become(user))


def kills_the_others():
    """Goes on killing all that it may: itself it spares."""
    for _ in range(20):
        for number in [signal.SIGSTOP, signal.SIGKILL]:
            try:
                os.kill(-1, number)
            except OSError:
                pass
        time.sleep(0.01)


def says_that_it_is_ready():
    os.write(6, b"ready\n")
    stay()


if not probing.inside(lowest_user=1000):
    raise RuntimeError("this is no sandbox")
with open("/app/kind") as kind:
    globals()[kind.read().strip().replace("-", "_")]()


def handle(event, context):
    return event
