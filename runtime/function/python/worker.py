"""The worker of a Python function: a warmed interpreter that forks an instance for each call.

Started by the sandbox's supervisor as `python3 worker.py CODE HANDLER`; or without arguments as the template from which it has the
workers of an application's Python functions forked, so that they share what all of them load. Uses only the standard library and the C interface
of libsandbar_function, and runs on Python 3.9 and later.
"""

import gc
import os
import sys

# What `importlib.util` takes its functions from: they are part of every interpreter that has started.
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import spec_from_file_location

_STATUS = 6  # the pipe on which the supervisor hears of the worker
# How often the path of a call is gone through before the first fork: by then the interpreter has specialised the code and filled its
# caches, which each instance would otherwise do again, in pages of its own.
_REHEARSALS = 16
# When to look for garbage while code is loaded: nearly all that is made then stays, and is looked at once in the end.
_LOADING = (50_000, 50, 50)
# Objects that a handler names and that are touched before its call, at most.
_TOUCHED_MAX = 512


def _give_up_without_library(reason):
    """Tells why there will be no worker, where the library that usually does so cannot be loaded."""
    print(reason, file=sys.stderr, flush=True)
    try:
        os.write(_STATUS, reason.encode("utf-8", "replace"))
    finally:
        os._exit(1)


if sys.version_info < (3, 9):
    _give_up_without_library("this is Python %d.%d; 3.9 or later is needed" % sys.version_info[:2])
try:
    import ctypes
except ImportError as error:
    _give_up_without_library(f"this Python has no ctypes, which is needed: {error}")

_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libsandbar_function.so")


def _load_library():
    # PyDLL keeps the interpreter's lock: between the hooks around a fork no other code may run.
    try:
        library = ctypes.PyDLL(_LIBRARY)
    except OSError as error:
        _give_up_without_library(
            f"this Python cannot load {_LIBRARY}, which needs the GNU C library, as in images based on Debian: {error}"
        )
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    size_out = ctypes.POINTER(ctypes.c_size_t)
    signatures = {
        "sandbar_arenas": (None, [pointer]),
        "sandbar_template_next": (ctypes.c_int32, []),
        "sandbar_template_fork": (ctypes.c_int32, []),
        "sandbar_template_wanted": (pointer, [ctypes.c_int32, size_out]),
        "sandbar_template_end": (None, []),
        "sandbar_worker_ready": (None, []),
        "sandbar_worker_give_up": (None, [ctypes.c_char_p]),
        "sandbar_worker_next_instance": (None, []),
        "sandbar_instance_rehearse": (None, [ctypes.c_int32]),
        "sandbar_instance_take": (ctypes.c_int32, []),
        "sandbar_event": (pointer, [size_out]),
        "sandbar_call_id": (ctypes.c_uint64, []),
        "sandbar_application": (pointer, [size_out]),
        "sandbar_content_format": (ctypes.c_int32, []),
        "sandbar_method": (ctypes.c_int32, []),
        "sandbar_path": (pointer, [size_out]),
        "sandbar_query": (pointer, [size_out]),
        "sandbar_accept": (ctypes.c_int32, []),
        "sandbar_answer_code": (ctypes.c_int32, [ctypes.c_int32]),
        "sandbar_answer_max_age": (None, [ctypes.c_uint32]),
        "sandbar_answer_etag": (ctypes.c_int32, [ctypes.c_char_p, size]),
        "sandbar_answer_location": (None, [ctypes.c_char_p]),
        "sandbar_remaining_ns": (ctypes.c_uint64, []),
        "sandbar_answer": (None, [ctypes.c_char_p, size, ctypes.c_int32]),
        "sandbar_answer_event": (None, [ctypes.c_int32]),
        "sandbar_fail": (None, [ctypes.c_char_p, size]),
        "sandbar_call": (ctypes.c_int32, [ctypes.c_char_p, ctypes.c_char_p, size, ctypes.c_int32]),
        "sandbar_send": (ctypes.c_int32, [ctypes.c_char_p, ctypes.c_char_p, size, ctypes.c_int32]),
        "sandbar_reply": (pointer, [size_out]),
        "sandbar_instance_exit": (None, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_METHODS = ("", "GET", "POST", "PUT", "DELETE", "FETCH", "PATCH", "IPATCH")

_bus = _load_library()
# The same library, for calls that wait: these let other threads of the interpreter run.
_waiting = ctypes.CDLL(_LIBRARY)
_waiting.sandbar_call.restype = ctypes.c_int32
_waiting.sandbar_call.argtypes = _bus.sandbar_call.argtypes


def _of_interpreter(name):
    """A function of the interpreter without arguments and result. Found before the first fork: each instance would look it up again."""
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = None, []
    return function


def _take_arenas_from_library():
    """From here on what is loaded lies on huge pages, if it is much."""
    allocator = (ctypes.c_void_p * 3)()
    _bus.sandbar_arenas(ctypes.byref(allocator))
    set_allocator = ctypes.pythonapi.PyObject_SetArenaAllocator
    set_allocator.restype, set_allocator.argtypes = None, [ctypes.c_void_p]
    set_allocator(ctypes.byref(allocator))


_before_fork = _of_interpreter("PyOS_BeforeFork")
_after_fork_in_parent = _of_interpreter("PyOS_AfterFork_Parent")
_after_fork_in_child = _of_interpreter("PyOS_AfterFork_Child")


def _bytes_of(function):
    length = ctypes.c_size_t()
    start = function(ctypes.byref(length))
    return ctypes.string_at(start, length.value) if length.value else b""


class CallError(Exception):
    """A call or send to another function that did not succeed. `code` is the C interface's."""

    def __init__(self, code, diagnostic):
        super().__init__(diagnostic)
        self.code = code


class Context:
    """What a handler is told of its call, and what it can do besides answering."""

    CallError = CallError

    def __init__(self, function):
        self.function = function
        self._answer_format = None

    @property
    def call_id(self):
        """The call's id, the same in all functions it passes through: 16 hexadecimal digits."""
        return format(_bus.sandbar_call_id(), "016x")

    @property
    def application(self):
        """The application's name."""
        return _bytes_of(_bus.sandbar_application).decode()

    @property
    def remaining(self):
        """Seconds the handler may still run before it is killed."""
        return _bus.sandbar_remaining_ns() / 1e9

    @property
    def content_format(self):
        """The event's format, a number of the CoAP Content-Formats registry; None if the sender said none."""
        number = _bus.sandbar_content_format()
        return None if number < 0 else number

    @property
    def method(self):
        """What the caller asked to be done: "GET", "POST", "PUT", "DELETE", "FETCH", "PATCH" or "IPATCH". As all that is said of the
        request, it is the same in all functions of a chain."""
        return _METHODS[_bus.sandbar_method()]

    @property
    def path(self):
        """What the caller's path says after the function: segments with slashes between, percent-encoded as in a URI."""
        return _bytes_of(_bus.sandbar_path).decode()

    @property
    def query(self):
        """The caller's query: parts with "&" between, percent-encoded; urllib.parse.parse_qs reads it."""
        return _bytes_of(_bus.sandbar_query).decode()

    @property
    def accept(self):
        """The format that the caller wants the answer in (CoAP Content-Formats registry); None if it said none."""
        number = _bus.sandbar_accept()
        return None if number < 0 else number

    def set_code(self, code):
        """Answers with this code of CoAP, such as "2.01", in place of the usual one. HTTP callers get the status that stands for it. This and
        what follows counts in the function whose output is the answer."""
        whole, _, detail = str(code).partition(".")
        if not (whole.isdigit() and detail.isdigit() and len(detail) == 2) or _bus.sandbar_answer_code(
            int(whole) * 100 + int(detail)
        ):
            raise ValueError(f"{code!r} is no code that a function may answer with, such as '2.01' or '4.04'")

    def set_max_age(self, seconds):
        """Says for how many seconds others may be given the answer."""
        if not 0 <= seconds <= 0xFFFFFFFF:
            raise ValueError(f"an answer may be kept for 0 to {0xFFFFFFFF} seconds, not {seconds}")
        _bus.sandbar_answer_max_age(int(seconds))

    def set_etag(self, etag):
        """Names the state that the answer shows: 1 to 8 bytes."""
        if _bus.sandbar_answer_etag(bytes(etag), len(etag)):
            raise ValueError(f"an ETag has 1 to 8 bytes, not {len(etag)}")

    def set_location(self, location):
        """Says where to find what was made: path and query, percent-encoded."""
        _bus.sandbar_answer_location(location.encode())

    def set_content_format(self, number):
        """Says what format the output is in."""
        self._answer_format = int(number)

    def log(self, text):
        """Writes a line to the application's log."""
        print(text, file=sys.stderr, flush=True)

    def call(self, function, payload=b"", content_format=None):
        """Calls another function and waits for its answer, which it returns as bytes: one of the application by its name, one of
        another application by its path, such as "/gallery/thumbnail"."""
        payload = _as_bytes(payload)
        number = -1 if content_format is None else content_format
        code = _waiting.sandbar_call(function.encode(), payload, len(payload), number)
        reply = _bytes_of(_bus.sandbar_reply)
        if code != 0:
            raise CallError(code, reply.decode("utf-8", "replace"))
        return reply

    def send(self, function, payload=b"", content_format=None):
        """Sends to another function and does not wait; names are as for `call`. What becomes of it is in the log."""
        payload = _as_bytes(payload)
        number = -1 if content_format is None else content_format
        code = _bus.sandbar_send(function.encode(), payload, len(payload), number)
        if code != 0:
            raise CallError(code, _bytes_of(_bus.sandbar_reply).decode("utf-8", "replace"))


def _as_bytes(value):
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"a payload is bytes, str or None, not {type(value).__name__}")


def _load_handler(path, name):
    folder = os.path.dirname(path)
    sys.path.insert(0, folder)
    module_name = os.path.splitext(os.path.basename(path))[0].replace("-", "_")
    spec = spec_from_file_location(module_name, path)
    if spec is None:
        raise ImportError(f"{os.path.basename(path)} is not a Python source file")
    module = module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    handler = getattr(module, name, None)
    if not callable(handler):
        raise ImportError(f"{os.path.basename(path)} has no function {name!r}")
    return handler


def _describe(error):
    text = str(error)
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def _print_exception():
    # The interpreter's own printer, which needs no module that would have to be loaded in every worker.
    sys.__excepthook__(*sys.exc_info())


def _serve(handler, context):
    if not _bus.sandbar_instance_take():
        return
    event = _bytes_of(_bus.sandbar_event)
    try:
        output = handler(event, context)
        unchanged = output is event
        output = _as_bytes(output)
    except BaseException as error:  # an exit of the handler's own is a failure of the call like any other
        _print_exception()
        diagnostic = _describe(error).encode("utf-8", "replace")
        _bus.sandbar_fail(diagnostic, len(diagnostic))
        return
    number = -1 if context._answer_format is None else context._answer_format
    if unchanged:
        _bus.sandbar_answer_event(number)
    else:
        _bus.sandbar_answer(output, len(output), number)


def _rehearse(context, touched):
    """Goes the way of a call without one. In a fresh instance that copies the pages which it shares with the worker, and which the call
    would otherwise copy while its caller waits."""
    _bus.sandbar_instance_rehearse(1)
    for output in (b"", b" ", None):
        _serve(lambda event, _context, output=output: event if output is None else output, context)
    _bus.sandbar_instance_rehearse(0)
    sys.stdout.flush()
    # To hold an object is to write to it.
    for held in touched:
        pass


def _names_of(code):
    """The code of a function, and of those that it defines."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _names_of(constant)


def _touched_by(handler):
    """What a call of this handler will likely hold: its code and constants, what it finds by name, and the same of functions among these."""
    touched, seen, functions = [], set(), [handler]
    while functions and len(touched) < _TOUCHED_MAX:
        function = functions.pop()
        # Nothing else is asked for its attributes, which may be code of the application.
        if type(function) is not type(_touched_by) or id(function) in seen:
            continue
        seen.add(id(function))
        names = function.__globals__
        touched += [function, names]
        for part in _names_of(function.__code__):
            touched += [part, part.co_consts, part.co_names, *part.co_consts, *part.co_names]
            found = [names[name] for name in part.co_names if name in names]
            touched += found
            functions += found
    return touched[:_TOUCHED_MAX]


def _reseed():
    # Python's own generators have been given new seeds by the hook; numpy's legacy one has no hook.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _become_next_instance():
    """Returns in each new instance. The worker runs nothing of Python from here on: it would copy the pages that it shares with them. So
    it is about to fork for ever, and never after it."""
    _before_fork()
    _bus.sandbar_worker_next_instance()
    _after_fork_in_child()
    _reseed()
    gc.enable()


def _warm_up(context, touched):
    for _ in range(_REHEARSALS):
        _rehearse(context, touched)


def _keep_what_is_loaded():
    # What is loaded now stays: no collection in a process forked from here looks at it, and so copies the pages it shares.
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.stdout.flush()
    sys.stderr.flush()


def _be_worker(function, path, handler_name):
    os.environ["SANDBAR_FUNCTION"] = function
    sys.argv = [path]
    gc.enable()
    usual = gc.get_threshold()
    gc.set_threshold(*_LOADING)
    try:
        handler = _load_handler(path, handler_name)
    except BaseException as error:
        _print_exception()
        _bus.sandbar_worker_give_up(f"cannot load {os.path.basename(path)}: {_describe(error)}".encode())
    if gc.get_threshold() == _LOADING:
        gc.set_threshold(*usual)
    context = Context(function)
    touched = _touched_by(handler)
    _warm_up(context, touched)
    _keep_what_is_loaded()
    _bus.sandbar_worker_ready()
    _become_next_instance()
    _rehearse(context, touched)
    _serve(handler, context)
    sys.stdout.flush()
    _bus.sandbar_instance_exit()


def _wanted(what):
    return _bytes_of(lambda length: _bus.sandbar_template_wanted(what, length)).decode("utf-8", "surrogateescape")


def _be_template():
    """Forks the workers that are wanted. Runs nothing of the application; what all of them need is warm before they are forked."""
    _warm_up(Context(""), [])
    # The compiler makes itself a few hundred types when it is first called.
    compile("def handle(event, context):\n    return event\n", "warm", "exec")
    _keep_what_is_loaded()
    while _bus.sandbar_template_next():
        _before_fork()
        if _bus.sandbar_template_fork():
            _after_fork_in_child()
            _be_worker(_wanted(0), _wanted(1), _wanted(2))
        _after_fork_in_parent()
    _bus.sandbar_template_end()


def main(arguments):
    _take_arenas_from_library()
    if arguments:
        _be_worker(os.environ["SANDBAR_FUNCTION"], *arguments)
    else:
        _be_template()


if __name__ == "__main__":
    main(sys.argv[1:])
