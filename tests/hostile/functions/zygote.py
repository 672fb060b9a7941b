"""Probes that go for the worker they were forked from, and for the calls that are forked after them."""

import builtins
import ctypes
import json
import os
import random
import secrets
import signal
import ssl
import sys
import tempfile
import uuid

import probing

try:
    import numpy
except ImportError:
    numpy = None

LIBC = ctypes.CDLL(None)
LIBC.drand48.restype = ctypes.c_double
# All of them used by the worker already: what they hold then must not be what a call draws from.
random.random(), LIBC.rand(), LIBC.random(), LIBC.drand48(), uuid.uuid4(), next(tempfile._get_candidate_names())
if numpy is not None:
    numpy.random.rand()
MARK = "was_here"


def mutate_the_interpreter(tried, context):
    """What one call does to modules, builtins and the process, the next does not find."""
    tried.check("a builtin of another call", not hasattr(builtins, MARK))
    tried.check("an attribute of a module of another call", not hasattr(json, MARK))
    tried.check("a module of another call", MARK not in sys.modules)
    tried.check("a variable of another call", MARK not in os.environ)
    tried.check("a path of another call", MARK not in sys.path)
    tried.check("a handler of another call", signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
    tried.check("a directory of another call", os.getcwd() == "/app")
    tried.check("a mask of another call", os.umask(0) != 0)
    tried.check("an attribute of the context of another call", not hasattr(context, MARK))
    tried.check("a timer of another call", signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0))
    for it in [builtins, json, context]:
        setattr(it, MARK, True)
    sys.modules[MARK] = json
    os.environ[MARK] = "1"
    sys.path.insert(0, MARK)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    os.chdir("/tmp")
    json.loads = lambda text: MARK
    os.getpid = lambda: 1


def leave_modules(tried, context):
    """Whatever an interpreter might load when it starts, in every place where a call may write."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    code = "import builtins; builtins.was_here = True\n"
    for place in ["/tmp", "/dev/shm", f"/tmp/.local/lib/{version}/site-packages", "/tmp/__pycache__", "/app/__pycache__", "/sandbar/__pycache__"]:
        try:
            os.makedirs(place, exist_ok=True)
            for name in ["json.py", "probing.py", "sitecustomize.py", "usercustomize.py", "evil.pth", "pyvenv.cfg", ".pdbrc"]:
                with open(f"{place}/{name}", "w") as file:
                    file.write(code)
        except OSError:
            pass
        tried.count += 1


def random_state(tried, context):
    numbers = {
        "random": random.random(),
        "uuid4": str(uuid.uuid4()),
        "urandom": os.urandom(8).hex(),
        "secrets": secrets.token_hex(8),
        "ssl": ssl.RAND_bytes(8).hex(),
        "tempfile": next(tempfile._get_candidate_names()),
        "shuffle": random.sample(range(10_000), 4),
        "libc rand": LIBC.rand(),
        "libc random": LIBC.random(),
        "libc drand48": LIBC.drand48(),
        "libc lrand48": LIBC.lrand48(),
        "arc4random": LIBC.arc4random() if hasattr(LIBC, "arc4random") else os.urandom(4).hex(),
    }
    if numpy is not None:
        numbers["numpy"] = numpy.random.rand()
        numbers["numpy's generator"] = numpy.random.default_rng().random()
    return json.dumps({name: str(number) for name, number in numbers.items()})


PROBES = dict(globals())


def handle(event, context):
    return probing.run(event, context, PROBES)
