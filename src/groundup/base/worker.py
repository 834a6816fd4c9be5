"""One function, called again and again in a sandboxed process that stays.

    worker = Worker("groundup.tokenizers.chat.template:answer", Limits(seconds=5))
    outcome = worker.call({"template": text})

As `base.sandbox.run_function`, but a call costs a fraction of a millisecond once the process stands. After its start
the process can open no file, no socket and no program: its limit of open files is zero. On Linux its root folder is an
empty one where the kernel lets us, and Landlock forbids all access to files where the kernel has it. A call that passes
a bound ends the process; the next call starts another.
"""

import atexit
import contextlib
import json
import os
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groundup.base.errors import GroundupError
from groundup.base.sandbox import WORKER, Limits, Outcome

# Wall time for the start of a process, and for a call beyond its CPU time: the machine may be busy with other things.
START_SECONDS = 120.0
PATIENCE = 20.0
HEADER = struct.Struct(">Q")


class Worker:
    """A process that answers calls of one function, one at a time; safe to share between threads and after a fork.

    Args:
        function: "package.module:name"; takes and returns what JSON can carry.
        limits: `seconds` of CPU time a call, memory of the process, bytes of an answer. Files and processes: none.
    """

    def __init__(self, function: str, limits: Limits | None = None):
        self.function, self.limits = function, limits or Limits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0
        atexit.register(self.close)

    def call(self, arguments: Mapping[str, Any], seconds: float | None = None) -> Outcome:
        """The function's value for keyword `arguments`; `seconds` of CPU time replace those of the limits.

        Raises:
            GroundupError: the process does not start.
            ValueError, TypeError, RecursionError: the arguments are no JSON.
        """
        seconds = self.limits.seconds if seconds is None else seconds
        request = _to_bytes({"arguments": dict(arguments), "seconds": seconds})
        with self._lock:
            self._start()
            started = time.monotonic()
            outcome = self._ask(request, seconds)
            if outcome.kind not in ("ok", "error"):
                self._stop()
        return Outcome(outcome.kind, outcome.value, message=outcome.message, seconds=time.monotonic() - started)

    def close(self) -> None:
        """End the process; the next call starts another."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        if self._process is not None and self._owner != os.getpid():
            self._forget()  # it is the parent's, from before a fork
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        folder = tempfile.mkdtemp(prefix="groundup-worker-")
        try:
            self._process = self._spawn(Path(folder))
            self._owner = os.getpid()
            ready = self._receive(time.monotonic() + START_SECONDS)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(ready, Outcome) or not ready.ok:
            self._stop()
            raise GroundupError(f"the sandbox for {self.function} did not start: {getattr(ready, 'message', '')}")

    def _spawn(self, folder: Path) -> subprocess.Popen:
        question = folder / "request.json"
        path = [os.path.abspath(entry) for entry in sys.path]
        request = {"serve": self.function, "path": path, "limits": asdict(self.limits), "tasks_of_user": 0}
        question.write_text(json.dumps(request), encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, "-I", "-B", str(WORKER), str(question), "1"],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _ask(self, request: bytes, seconds: float) -> Outcome:
        deadline = time.monotonic() + 2 * seconds + PATIENCE
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin.fileno(), HEADER.pack(len(request)) + request, deadline)
            return self._receive(deadline)
        except BrokenPipeError:
            return self._death()
        except TimeoutError:
            return Outcome("timeout", message=f"stopped: longer than {seconds:g} s")

    def _receive(self, deadline: float) -> Outcome:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        head = _read(descriptor, HEADER.size, deadline)
        if len(head) < HEADER.size:
            return self._death()
        (size,) = HEADER.unpack(head)
        if size > self.limits.output_bytes:
            return Outcome("output", message=f"stopped: more than {self.limits.output_bytes:,} bytes of output")
        body = _read(descriptor, size, deadline)
        if len(body) < size:
            return self._death()
        try:
            reply = json.loads(body.decode("utf-8", errors="surrogatepass"))
            kind, value, message = reply["kind"], reply.get("value"), str(reply.get("message", ""))
        except (ValueError, RecursionError, KeyError, TypeError):
            return Outcome("crash", message="the worker's answer is damaged")
        return Outcome(kind if kind in ("ok", "memory", "error") else "crash", value, message=message)

    def _death(self) -> Outcome:
        """What the end of the process says."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode or 0
        number = code - 128 if code > 128 else -code
        if number in (signal.SIGXCPU, signal.SIGKILL):
            return Outcome("timeout", message="stopped: more CPU time than it was given")
        name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
        return Outcome("crash", message=f"the worker ended without an answer ({name})")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _close(process)

    def _forget(self) -> None:
        """Let go of a process that belongs to our parent; its life is not ours to end."""
        process, self._process = self._process, None
        if process is not None:
            _close(process)
            process.returncode = 0  # so that nobody waits for what is no child of ours


def _close(process: subprocess.Popen) -> None:
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()


def _to_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="surrogatepass")


def _write(descriptor: int, data: bytes, deadline: float) -> None:
    os.set_blocking(descriptor, False)
    view = memoryview(data)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        while view:
            _wait(selector, deadline)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(descriptor, view[: 1 << 20]) :]


def _read(descriptor: int, size: int, deadline: float) -> bytes:
    """`size` bytes, or fewer where the pipe ends."""
    os.set_blocking(descriptor, False)
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(data) < size:
            _wait(selector, deadline)
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(descriptor, min(size - len(data), 1 << 20))
                if not chunk:
                    break
                data += chunk
    return bytes(data)


def _wait(selector: selectors.BaseSelector, deadline: float) -> None:
    if not selector.select(max(0.0, deadline - time.monotonic())):
        raise TimeoutError
