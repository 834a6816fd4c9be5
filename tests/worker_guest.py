"""A guest of the sandboxed worker that runs whatever it is told, as code that has broken out would."""

import os
import socket


def run(code: str) -> None:
    """Run the statements."""
    exec(code, {"os": os, "socket": socket})
