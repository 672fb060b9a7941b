"""Probes that answer too often, too much, or with what is no answer."""

import os
import sys
import threading
import time

import __main__
import probing
from probing import OnPurpose


def answer_twice(tried, context):
    for text in [b"first", b"second", b"third"]:
        __main__._bus.sandbar_answer(text, len(text), 0)
    return "fourth"


def answer_and_fail(tried, context):
    __main__._bus.sandbar_answer(b"first", 5, 0)
    __main__._bus.sandbar_fail(b"second", 6)
    raise OnPurpose("third")


def answer_in_both(tried, context):
    os.fork()
    return "both"


def answer_after_the_end(tried, context):
    """A child that goes on calling others when its call has been answered."""
    if os.fork() == 0:
        while True:
            try:
                context.send("echo", b"late")
                context.call("echo", b"late")
            except Exception:
                pass
    return "first"


def answer_too_large(tried, context):
    return b"x" * ((1 << 20) + 1)


def answer_wrong_memory(tried, context):
    import ctypes
    library = ctypes.CDLL(__main__._LIBRARY)
    library.sandbar_answer(ctypes.c_void_p(8), ctypes.c_size_t(1 << 19), 0)
    return "still here"


def answer_no_bytes(tried, context):
    return {"an": "object"}


def answer_odd_format(tried, context):
    for number in [-1, -2, 65_536, 1 << 20, -(1 << 31)]:
        context.set_content_format(number)
    context.set_content_format(70_000)
    return "odd"


def error_without_text(tried, context):
    raise OnPurpose()


def error_that_cannot_be_told(tried, context):
    class Hostile(OnPurpose):
        def __str__(self):
            raise self
    raise Hostile()


def call_itself(tried, context):
    return context.call("python", b"call-itself\n")


def error_with_escapes(tried, context):
    raise OnPurpose("\x1b[2J\x1b]0;forged\x07\r\x9b31m\0\u202e end")


def error_as_lines(tried, context):
    raise OnPurpose("one\r\n2026-01-01T00:00:00.000Z echo: forged\n\nHTTP/1.1 200 OK\r\n\r\nforged")


def fake_logs(tried, context):
    for line in ["2026-01-01T00:00:00.000Z echo: forged", '{"time":{},"function":"echo","text":"forged"}',
                 '"}\\n{"function":"echo","text":"forged', "\r2026-01-01T00:00:00.000Z echo: forged",
                 "\x1b[1A\x1b[2K2026-01-01T00:00:00.000Z echo: forged", "\x1b]52;c;Zm9yZ2Vk\x07", "\x9b2J", "\0", "\u2028echo: forged"]:
        context.log(line)
    os.write(2, b"forged \xff\xfe\xc3\x28 and not ended")
    os.write(2, b"\nthe last line\n")
    return "logged"


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
