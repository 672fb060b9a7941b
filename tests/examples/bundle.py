"""Loads functions straight from the example bundles, and stands in for what a sandbox gives them."""

import importlib.util
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# A __pycache__ left in a bundle would be deployed with it.
sys.dont_write_bytecode = True


def load(application, name):
    """The module `name` of an application's bundle."""
    path = EXAMPLES / application / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{application}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Context:
    """What a handler is told of its call; keeps what the handler says of its answer."""

    def __init__(self, content_format=None):
        self.content_format = content_format
        self.answer_format = None
        self.lines = []

    def set_content_format(self, number):
        self.answer_format = number

    def log(self, text):
        self.lines.append(text)
