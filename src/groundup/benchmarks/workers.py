"""Worker processes that measure when asked: each loads its libraries and model once, then waits, using no processor.

So the variants of a comparison can take turns without sharing threads, allocators or settings. Questions and answers
are JSON lines; what a worker prints otherwise goes to stderr.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

from groundup.base.errors import GroundupError


class Worker:
    """A process running `python -m MODULE ARGUMENTS`, whose main function calls `serve`.

    Args:
        module: dotted name.
        arguments: its command line.
    """

    def __init__(self, module: str, *arguments: str):
        self.name = " ".join([module.rpartition(".")[2], *arguments])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **question: Any) -> Any:
        """Put a question and wait for its answer; GroundupError where the process ended instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: there will be no answer either
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise GroundupError(f"{self.name} ended with status {self.process.wait()}; its errors stand above")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # the end of its questions is the end of the worker
        self.process.wait()
        self.process.stdout.close()


def serve(answer: Callable[..., Any]) -> None:
    """In the worker: answer questions until there are no more."""
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        replies.write(json.dumps(answer(**json.loads(line))) + "\n")
        replies.flush()
