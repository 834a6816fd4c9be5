"""The inside of the sandbox: a script (standard library alone) that bounds itself, runs the request, and answers.

    python -I -B sandbox_worker.py REQUEST.json ANSWER_DESCRIPTOR

`base.sandbox` starts it for one request, `base.worker` to serve many; nothing imports it.
"""

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import runpy
import signal
import struct
import sys
import traceback
from collections.abc import Callable

LANDLOCK_CREATE, LANDLOCK_RESTRICT_SELF, PR_SET_NO_NEW_PRIVS = 444, 446, 38
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000


def main() -> None:
    """Read the request, shut the doors, run, answer."""
    request_file, answer = sys.argv[1], int(sys.argv[2])
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    os.remove(request_file)
    os.set_inheritable(answer, False)
    if leave_namespaces():
        become_child_of_init()
    set_limits(request["limits"], request["tasks_of_user"], renewable="serve" in request)
    if "serve" in request:
        serve(request, answer)
        os._exit(0)
    reply = run(request)
    send(answer, reply)
    os._exit(0)  # threads and exit handlers of the guest get no further turn


def leave_namespaces() -> bool:
    """Leave the network and the process tree of the machine, where the kernel allows it; whether it did."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return any(
        libc.unshare(flags) == 0 for flags in (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET, CLONE_NEWPID | CLONE_NEWNET)
    )


def become_child_of_init() -> None:
    """Go on as the second process of the new namespace.

    Its first (init) only waits: signals with a default action do not reach an init, so the guest must not be one. When
    init ends, the kernel kills whatever is left in the namespace.
    """
    for _ in range(2):
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            os._exit(128 - code if code < 0 else code)


def set_limits(limits: dict, tasks_of_user: int, renewable: bool) -> None:
    """Hard limits: the guest cannot raise them again. CPU time is `renewable` for a server: each call gets its own."""
    seconds = math.ceil(limits["seconds"])
    bounds = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
    }
    if not renewable:
        bounds[resource.RLIMIT_CPU] = (seconds, seconds + 1)  # SIGXCPU, and a second later SIGKILL
    if tasks_of_user:
        bounds[resource.RLIMIT_NPROC] = tasks_of_user + limits["processes"]
    for name, value in bounds.items():
        soft, hard = value if isinstance(value, tuple) else (value, value)
        try:
            resource.setrlimit(name, (soft, hard))
        except (ValueError, OSError):
            # macOS refuses some; below an inherited hard limit the stricter one stays
            continue
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # too large a file is an OSError in the guest, not a crash


def run(request: dict) -> dict:
    """The reply: {"kind": "ok", "value"}, {"kind": "memory"} or {"kind": "error", "message"}."""
    try:
        value = run_program(request) if "program" in request else call(request)
        json.dumps(value)
        return {"kind": "ok", "value": value}
    except MemoryError:
        return {"kind": "memory", "message": "out of the memory it was given"}
    except SystemExit as end:
        if end.code in (None, 0):
            return {"kind": "ok", "value": None}
        return {"kind": "error", "message": f"SystemExit: {end.code}"}
    except BaseException as error:
        traceback.print_exc()
        return {"kind": "error", "message": "".join(traceback.format_exception_only(error)).strip()[-2000:]}


def call(request: dict) -> object:
    """Import the function and call it."""
    return find(request["function"], request["path"])(**request["arguments"])


def find(function: str, path: list) -> Callable:
    """The function called "package.module:name"."""
    sys.path[:] = path
    module, _, name = function.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[return-value]


def serve(request: dict, answer: int) -> None:
    """Import the function, shut the last doors, and answer calls from standard input until it ends.

    Requests and replies are JSON after their length in 8 bytes.
    """
    try:
        function = find(request["serve"], request["path"])
        reply = {"kind": "ok", "value": None}
    except BaseException as error:
        function, reply = None, {"kind": "error", "message": f"{type(error).__name__}: {error}"}
    answer = leave_stdout(answer)
    shut_doors()
    send_framed(answer, reply)
    while function is not None:
        head = read_exactly(8)
        body = read_exactly(struct.unpack(">Q", head)[0]) if len(head) == 8 else b""
        if not body:
            return
        send_framed(answer, answer_to(function, body))


def shut_doors() -> None:
    """From here on nothing can be opened, changed or started: no file, no socket, no program.

    The limit of open files is zero, everywhere. On Linux the working folder, which is empty and then removed, becomes
    the root folder where the kernel lets us, and Landlock (5.13 and later) forbids all access to files.
    """
    forbid_files()
    with contextlib.suppress(OSError, AttributeError):
        os.chroot(".")
        os.chdir("/")
    for name in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(name, (0, 0))


def forbid_files() -> None:
    """Landlock without a rule that allows anything."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    # Version 1 knows 13 rights; 2 adds moving between folders, 3 truncating, 5 device controls.
    rights = ctypes.c_uint64((1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1)
    rules = libc.syscall(LANDLOCK_CREATE, ctypes.byref(rights), ctypes.c_size_t(8), 0)
    if rules >= 0:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0)
        os.close(rules)


def leave_stdout(answer: int) -> int:
    """A descriptor for the answers alone: what the guest prints goes nowhere."""
    moved, nowhere = os.dup(answer), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return moved


def answer_to(function: Callable, body: bytes) -> dict:
    """The reply to one call, whose CPU time is bounded."""
    try:
        question = json.loads(body.decode("utf-8", errors="surrogatepass"))
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + question["seconds"]) + 1, hard))
        return {"kind": "ok", "value": function(**question["arguments"])}
    except MemoryError:
        return {"kind": "memory", "message": "out of the memory it was given"}
    except BaseException as error:
        return {"kind": "error", "message": f"{type(error).__name__}: {error}"[:2000]}


def read_exactly(size: int) -> bytes:
    """`size` bytes of standard input, or fewer at its end."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, min(size - len(data), 1 << 20))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def send_framed(answer: int, reply: dict) -> None:
    """Write a reply after its length."""
    try:
        data = json.dumps(reply, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
    except MemoryError:
        data = b'{"kind": "memory", "message": "out of the memory it was given"}'
    except (TypeError, ValueError, RecursionError) as error:
        data = json.dumps({"kind": "error", "message": f"the value is no JSON: {error}"[:2000]}).encode()
    write_all(answer, struct.pack(">Q", len(data)))
    write_all(answer, data)


def write_all(answer: int, data: bytes) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(answer, view) :]


def run_program(request: dict) -> None:
    """Run the source text as `__main__` in the empty working folder."""
    with open("program.py", "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(request["program"])
    sys.argv = ["program.py"]
    runpy.run_path("program.py", run_name="__main__")


def send(answer: int, reply: dict) -> None:
    """Flush what was printed, then write the reply as JSON."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # the guest closed it
    write_all(answer, json.dumps(reply).encode())


if __name__ == "__main__":
    main()
