"""Probes that stay alive, or die oddly."""

import os
import signal
import sys
import threading
import time

import __main__
import probing


def stay():
    while True:
        time.sleep(60)


def deaf():
    """Hears no signal that can be ignored or blocked."""
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))


def daemonise(tried, context):
    for _ in range(4):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.chdir("/")
                os.closerange(0, 1024)
                stay()
            os._exit(0)
    return "left"


def deaf_children(tried, context):
    def child():
        os.setpgid(0, 0)
        deaf()
        if os.fork() == 0:
            os.setsid()
        stay()
    probing.leave(5, child)
    return "left"


def stopped_children(tried, context):
    probing.leave(5, lambda: (os.setsid(), os.kill(os.getpid(), signal.SIGSTOP), stay()))
    time.sleep(0.05)
    return "left"


def answer_then_go_on(tried, context):
    """Its caller is told at once; the process has until its deadline, and no longer."""
    __main__._bus.sandbar_answer(b"first", 5, 0)
    deaf()
    while True:
        pass


def answer_then_fork_on(tried, context):
    __main__._bus.sandbar_answer(b"first", 5, 0)
    while True:
        if os.fork() != 0:
            time.sleep(0.01)
            os._exit(0)


def stop_itself(tried, context):
    os.kill(os.getpid(), signal.SIGSTOP)
    stay()


def sleep_deaf(tried, context):
    deaf()
    stay()


def close_everything(tried, context):
    os.closerange(0, 1024)
    return "closed"


def kill_everybody(tried, context):
    """All that run as its user but itself, which is nobody; it then stays."""
    os.kill(-1, signal.SIGKILL)
    stay()


def hold_the_log(tried, context):
    """A child that has the log open, and writes to it for as long as it lives."""
    def child():
        while True:
            os.write(2, b"still here\n")
            time.sleep(0.001)
    probing.leave(3, child)
    return "left"


def exit_in_a_thread(tried, context):
    threading.Thread(target=lambda: os._exit(0)).start()
    stay()


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
