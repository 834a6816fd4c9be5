"""A guest of the sandboxed worker that runs whatever it is told, as code that has broken out would."""

import os
import socket

counted: list = []


def run(code: str) -> None:
    """Run statements."""
    exec(code, {"os": os, "socket": socket})


def evaluate(code: str) -> object:
    """The value of an expression."""
    return eval(code, {"os": os, "counted": counted})
