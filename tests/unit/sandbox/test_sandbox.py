"""The sandbox: every way out is bounded, and nothing is left behind."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from groundup.base import sandbox
from groundup.base.sandbox import Limits, run_function, run_program

SHORT = Limits(seconds=1.0)


def test_function_returns_json():
    outcome = run_function("json:loads", {"s": '{"a": [1, 2.5, null, "\\u00e9"]}'})
    assert outcome.ok
    assert outcome.value == {"a": [1, 2.5, None, "é"]}


def test_function_by_itself():
    import textwrap

    assert run_function(textwrap.dedent, {"text": "  a\n  b"}).value == "a\nb"


def test_what_it_prints_is_kept():
    outcome = run_program("import sys; print('hello'); print('oops', file=sys.stderr)")
    assert outcome.ok
    assert (outcome.stdout, outcome.stderr) == ("hello\n", "oops\n")


def test_exception_is_an_error_with_its_message():
    outcome = run_program("assert 1 + 1 == 3, 'no such sum'")
    assert outcome.kind == "error"
    assert outcome.message == "AssertionError: no such sum"
    assert "program.py" in outcome.stderr


@pytest.mark.parametrize(("source", "kind"), [("import sys; sys.exit(0)", "ok"), ("import sys; sys.exit(3)", "error")])
def test_exit_code(source, kind):
    assert run_program(source).kind == kind


def test_value_that_is_no_json_is_an_error():
    assert run_function("builtins:bytes", {}).kind == "error"


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
    ],
)
def test_endless_is_stopped(source):
    outcome = run_program(source, SHORT)
    assert outcome.kind == "timeout"
    assert outcome.seconds < 5


def test_memory_bomb():
    outcome = run_program("x = []\nwhile True: x.append(bytearray(1 << 24))", Limits(seconds=10, memory_bytes=1 << 28))
    assert outcome.kind == "memory"


def test_memory_of_template_bomb():
    assert run_program("'a' * (3 << 30)", Limits(memory_bytes=1 << 28)).kind == "memory"


# The bomb stops by itself at 200 children and 3 seconds, should the sandbox fail to stop it.
FORK_BOMB = """
import os, time
end = time.time() + 3
for _ in range(200):
    try:
        if os.fork() == 0:
            SETSID
            time.sleep(end - time.time())
            os._exit(0)
    except OSError:
        print("refused")
        break
time.sleep(2)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are counted on Linux alone")
def test_fork_bomb():
    outcome = run_program(FORK_BOMB.replace("SETSID", "pass"), Limits(seconds=4, processes=8))
    assert outcome.kind == "processes" or "refused" in outcome.stdout


def can_isolate() -> bool:
    return (
        subprocess.run(["unshare", "-Unp", "--fork", "true"], capture_output=True, check=False).returncode == 0
        if sys.platform.startswith("linux")
        else False
    )


isolated = pytest.mark.skipif(not can_isolate(), reason="this kernel lets this user make no namespaces")


@isolated
def test_fork_bomb_that_leaves_the_session():
    outcome = run_program(FORK_BOMB.replace("SETSID", "os.setsid()"), Limits(seconds=4, processes=8))
    assert outcome.kind == "processes" or "refused" in outcome.stdout


@isolated
def test_no_daemon_survives(tmp_path):
    mark = tmp_path / "alive"
    source = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(1)
    open({str(mark)!r}, "w").close()
"""
    assert run_program(source).ok
    time.sleep(1.5)
    assert not mark.exists()


@pytest.fixture
def without_namespaces(tmp_path, monkeypatch):
    """The sandbox as it is where the kernel refuses namespaces."""
    script = tmp_path / "worker.py"
    script.write_text(sandbox.WORKER.read_text().replace("if leave_namespaces():", "if False:"))
    monkeypatch.setattr(sandbox, "WORKER", script)


@pytest.mark.usefixtures("without_namespaces")
def test_limits_hold_without_namespaces():
    assert run_program("print(1)").stdout == "1\n"
    assert run_program("while True: pass", SHORT).kind == "timeout"
    assert run_program("import os; os._exit(0)").kind == "crash"
    outcome = run_program(FORK_BOMB.replace("SETSID", "pass"), Limits(seconds=4, processes=8))
    assert outcome.kind == "processes" or "refused" in outcome.stdout


@pytest.mark.usefixtures("without_namespaces")
def test_child_that_stays_in_the_group_is_killed(tmp_path):
    mark = tmp_path / "alive"
    source = f"import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    open({str(mark)!r}, 'w').close()\n"
    assert run_program(source).ok
    time.sleep(1.5)
    assert not mark.exists()


@isolated
def test_no_network():
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: server.accept(), daemon=True).start()
    port = server.getsockname()[1]
    outcome = run_program(f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)")
    assert outcome.kind == "error"
    assert "OSError" in outcome.message or "unreachable" in outcome.message or "refused" in outcome.message
    socket.create_connection(("127.0.0.1", port)).close()
    server.close()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_huge_output(stream):
    outcome = run_program(
        f"import sys\nwhile True: sys.{stream}.write('x' * 65536)", Limits(seconds=10, output_bytes=1 << 18)
    )
    assert outcome.kind == "output"
    assert len(getattr(outcome, stream)) <= 1 << 18


def test_huge_answer():
    outcome = run_function("random:choices", {"population": ["x" * 1000], "k": 1000}, Limits(output_bytes=10_000))
    assert outcome.kind == "output"


def test_huge_file_is_refused():
    outcome = run_program("open('big', 'wb').write(b'x' * (2 << 20))", Limits(file_bytes=1 << 20))
    assert outcome.kind == "error"
    assert "OSError" in outcome.message


def test_open_files_are_bounded():
    outcome = run_program("files = [open('/dev/null') for _ in range(100)]", Limits(open_files=20))
    assert outcome.kind == "error"
    assert "Too many open files" in outcome.message


def test_secrets_of_the_environment_are_invisible(monkeypatch):
    monkeypatch.setenv("GROUNDUP_SECRET_KEY", "hunter2")
    outcome = run_program("import os; print(dict(os.environ))")
    assert outcome.ok
    assert "hunter2" not in outcome.stdout
    assert "SECRET" not in outcome.stdout


def test_folder_is_empty_and_removed():
    outcome = run_program("import os; print(os.getcwd()); print(os.listdir()); open('left', 'w').close()")
    folder, listing = outcome.stdout.splitlines()
    assert listing == "['program.py']"
    assert not Path(folder).exists()


def test_crash():
    outcome = run_program("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.kind == "crash"
    assert "SIGSEGV" in outcome.message


def test_exit_without_answer_is_a_crash():
    assert run_program("import os; os._exit(0)").kind == "crash"


def test_limits_cannot_be_raised():
    source = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (100, 100))"
    outcome = run_program(source, Limits(seconds=5))
    assert outcome.kind == "error" or os.getuid() == 0


def test_no_process_or_descriptor_is_left():
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for source in ("pass", "raise ValueError", "import os; os._exit(1)"):
        run_program(source)
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before


@pytest.mark.parametrize("forged", ["not json", '{"kind": "timeout"}', "[" * 100_000, "{}"])
def test_forged_answers(forged):
    source = f"""
import os
for fd in range(3, 20):
    try:
        os.write(fd, {forged!r}.encode())
    except OSError:
        pass
os._exit(0)
"""
    assert run_program(source).kind == "crash"
