"""Python processes of this package's own modules, fed through pipes.

A message is its length (8 bytes) and as many bytes. Nothing is pickled, and no module of the user's is run again (there
is no need for `if __name__ == "__main__"`). A process is a session of its own, so that an interrupt from the keyboard
reaches only the program that started it, which ends it; when that program dies, the pipe ends, and so does the process.
"""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import groundup
from groundup.base.errors import GroundupError

LENGTH = struct.Struct("<Q")
READY = b"ready"


class Helper:
    """A process that runs a module of this package.

    Args:
        module: its name; it says `READY` first.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, module: str):
        # The process finds this package where we found it, and nothing in the folder it is started from.
        places = [str(Path(groundup.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        """Wait until the module is loaded.

        Raises:
            GroundupError: it ended before.
        """
        if self.receive() != READY:
            raise GroundupError("a process answered with something else than was expected")

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            GroundupError: the process has ended.
        """
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, message)
        except (OSError, ValueError):  # ValueError: closed from another thread
            raise self._ended() from None

    def finish(self) -> None:
        """Tell that no more messages come."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: `receive` says so
            self._process.stdin.close()

    def receive(self) -> bytes:
        """The next message.

        Raises:
            GroundupError: the process has ended.
        """
        assert self._process.stdout is not None
        message = read_message(self._process.stdout)
        if message is None:
            raise self._ended()
        return message

    def _ended(self) -> GroundupError:
        code = self._process.wait()
        how = f"with status {code}"
        if code < 0:
            how = f"by signal {-code} ({signal.Signals(-code).name})" if -code in set(signal.Signals) else how
        memory = ": the system may have run out of memory" if code == -9 else ""
        return GroundupError(
            f"a process that helped with the text was ended {how}{memory}. "
            "With OMP_NUM_THREADS=1 all is done in one process"
        )

    def kill(self) -> None:
        """End the process at once, whatever it does; to be called from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process and wait for its end."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def start(module: str, count: int, stack: contextlib.ExitStack) -> list[Helper]:
    """`count` processes, loaded, that end with the stack.

    Raises:
        OSError, GroundupError: they do not start.
    """
    helpers = [stack.enter_context(contextlib.closing(Helper(module))) for _ in range(count)]
    for helper in helpers:
        helper.wait_ready()
    return helpers


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Write a message, and send it off."""
    stream.write(LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message; None at the end, or where the rest is missing."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    message = stream.read(size)
    return message if len(message) == size else None


def messages(stream: IO[bytes]) -> Iterator[bytes]:
    """All messages until the end."""
    return iter(lambda: read_message(stream), None)  # pyright: ignore[reportReturnType]


def serve(answer: Callable[[IO[bytes], IO[bytes]], None]) -> None:
    """What a process does: say `READY`, and hand over to `answer`; nothing else may be written to stdout meanwhile."""
    read, write = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        write_message(write, READY)
        answer(read, write)
