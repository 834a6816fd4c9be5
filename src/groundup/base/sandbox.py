"""Run a function or a program in a worker process with bounds on everything it may use.

    outcome = run_function("groundup.tokenizers.chat.render:render", {"template": text}, Limits(seconds=2))
    outcome = run_program("assert add(2, 3) == 5", Limits(seconds=5))

Bounded: wall and CPU time, memory of each process, number of processes, open files, size of files, and all output. The
worker sees none of the parent's environment variables, works in an empty folder that is removed afterwards, and answers
with JSON on a pipe; nothing is ever unpickled. At the end its whole process group is killed.

What holds where:
- Linux, where the kernel lets this user make namespaces: no network, and no process outlives the worker, not even a
  daemon.
- Linux without namespaces: the network stays open, and a process that leaves the group (setsid) may outlive it.
- macOS: the same, and the system does not enforce the memory bound; the wall-time bound still ends a runaway.
- Windows: not supported; WSL is.

The worker runs as the same user and can read that user's files. This stops accidents and runaway code of a model, not
an attacker who studies the machine: run code of strangers in a virtual machine.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

WORKER = Path(__file__).with_name("sandbox_worker.py")
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """What a worker may use."""

    seconds: float = 10.0
    """Wall time; CPU time is bounded by the same number, rounded up."""
    memory_bytes: int = 1 << 30
    """Address space of each process."""
    output_bytes: int = 1 << 20
    """Of stdout, stderr and the answer together."""
    file_bytes: int = 16 << 20
    """Of each file it writes."""
    open_files: int = 64
    processes: int = 16


Kind = Literal["ok", "timeout", "memory", "output", "processes", "crash", "error"]


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    kind: ok; timeout (wall or CPU); memory; output (it wrote too much); processes (it started too many); crash (a
        signal ended it); error (an exception, whose last line is `message`).
    value: what the function returned, as JSON gives it back. It comes from inside the sandbox: check it before use.
    """

    kind: Kind
    value: Any = None
    stdout: str = ""
    stderr: str = ""
    message: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """It ran to its end without an exception."""
        return self.kind == "ok"


def run_function(function: str | Callable, arguments: Mapping[str, Any], limits: Limits | None = None) -> Outcome:
    """Call an importable function with keyword `arguments` that JSON can carry.

    `function` is "package.module:name" or the function itself, which must stand at the top of a module.
    """
    if not isinstance(function, str):
        function = f"{function.__module__}:{function.__qualname__}"
    return _run({"function": function, "arguments": dict(arguments), "path": _import_path()}, limits or Limits())


def run_program(source: str, limits: Limits | None = None) -> Outcome:
    """Run Python source text as a program; `value` is None. Exit code 0 is ok, any other an error."""
    return _run({"program": source, "path": []}, limits or Limits())


def _import_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]


def _run(request: dict[str, Any], limits: Limits) -> Outcome:
    request |= {"limits": asdict(limits), "tasks_of_user": _tasks_of_user()}
    with tempfile.TemporaryDirectory(prefix="groundup-sandbox-", ignore_cleanup_errors=True) as folder:
        question = Path(folder) / "request.json"
        question.write_text(json.dumps(request), encoding="utf-8")  # the worker deletes it before anything else runs
        return _Watch(folder, question, limits).run()


class _Watch:
    """Starts a worker, gathers what it writes, and ends it when a bound is passed."""

    def __init__(self, folder: str, question: Path, limits: Limits):
        self.limits = limits
        answer_read, answer_write = os.pipe()
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "TMPDIR": folder,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
        }
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(WORKER), str(question), str(answer_write)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(answer_write,),
            start_new_session=True,
        )
        os.close(answer_write)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.pipes = {
            "stdout": self.process.stdout.fileno(),
            "stderr": self.process.stderr.fileno(),
            "answer": answer_read,
        }
        self.received = {name: bytearray() for name in self.pipes}

    def run(self) -> Outcome:
        try:
            stopped = self.watch()
        finally:
            self.kill()
            self.process.wait()
            os.close(self.pipes["answer"])
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()
        return self.outcome(stopped)

    def watch(self) -> Kind | None:
        """Read until the worker has ended; the bound that was passed, or None."""
        with selectors.DefaultSelector() as selector:
            for name, descriptor in self.pipes.items():
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ, name)
            while True:
                ended = self.process.poll() is not None
                for key, _ in selector.select(0 if ended else POLL_SECONDS):
                    if not self.read(key.data, key.fd):
                        selector.unregister(key.fd)
                if sum(map(len, self.received.values())) > self.limits.output_bytes:
                    return "output"
                if ended:
                    return None
                if time.monotonic() - self.started > self.limits.seconds:
                    return "timeout"
                if _processes_of(self.process.pid) > self.limits.processes + HELPERS:
                    return "processes"

    def read(self, name: str, descriptor: int) -> bool:
        """Take what a pipe holds, up to the bound; False at its end."""
        with contextlib.suppress(BlockingIOError):
            while len(self.received[name]) <= self.limits.output_bytes:
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    return False
                self.received[name] += chunk
        return True

    def kill(self) -> None:
        """End the worker's whole process group; in its own namespace everything else dies with it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def outcome(self, stopped: Kind | None) -> Outcome:
        seconds = time.monotonic() - self.started
        texts = {
            name: bytes(self.received[name][: self.limits.output_bytes]).decode(errors="replace")
            for name in ("stdout", "stderr")
        }
        if stopped:
            return Outcome(stopped, message=f"stopped: {self.bound(stopped)}", seconds=seconds, **texts)
        kind, value, message = self.answer()
        return Outcome(kind, value, message=message, seconds=seconds, **texts)

    def bound(self, kind: Kind) -> str:
        limits = self.limits
        return {
            "timeout": f"longer than {limits.seconds:g} s",
            "output": f"more than {limits.output_bytes:,} bytes of output",
            "processes": f"more than {limits.processes} processes",
        }[kind]

    def answer(self) -> tuple[Kind, Any, str]:
        """(kind, value, message) from the worker's JSON, or from the way it died."""
        try:
            reply = json.loads(self.received["answer"].decode())
            if reply["kind"] in ("ok", "memory", "error"):
                return reply["kind"], reply.get("value"), str(reply.get("message", ""))
        except (ValueError, RecursionError, KeyError, TypeError):
            pass  # no answer, or one that the code inside has tampered with
        code = self.process.returncode
        number = code - 128 if code > 128 else -code
        if number == signal.SIGXCPU:
            return "timeout", None, f"stopped: more than {self.limits.seconds:g} s of CPU time"
        name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
        return "crash", None, f"the worker ended without an answer ({name})"


# In a namespace of its own the worker has two helpers above it: the process that made it, and the namespace's init.
HELPERS = 2


def _processes_of(worker: int) -> int:
    """Processes in the worker's namespace, or in its session where it has none; 0 where /proc does not tell.

    RLIMIT_NPROC does not bind root and counts the user's other processes, so we also count.
    """
    try:
        namespace = os.readlink(f"/proc/{worker}/ns/pid_for_children")
        own = namespace == os.readlink("/proc/self/ns/pid")
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return 0
    return sum(_belongs(number, worker if own else namespace) for number in numbers)


def _belongs(number: str, group: int | str) -> bool:
    try:
        if isinstance(group, int):
            return os.getsid(int(number)) == group
        return os.readlink(f"/proc/{number}/ns/pid") == group
    except OSError:
        return False


def _tasks_of_user() -> int:
    """Processes and threads of this user now: RLIMIT_NPROC counts them all together."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == os.getuid():
                total += len(os.listdir(entry / "task"))
    return total
