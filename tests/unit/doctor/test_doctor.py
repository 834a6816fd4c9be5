"""The doctor: what it checks on a sound machine, and what it says of an unsound one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import groundup
from groundup.base import checkup
from groundup.base.checkup import Check
from groundup.commands.doctor import Doctor


def by_name(checks) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_this_machine_is_sound(capsys):
    result = Doctor().run()
    assert result["ok"]
    assert Doctor().exit_code(result) == 0
    names = {check.name for check in result["checks"]}
    assert {
        "python",
        "torch",
        "compute",
        "speed",
        "threads",
        "memory",
        "disk",
        "gpu",
        "compiler",
        "writing",
        "text",
    } <= names
    assert "0 failing" in capsys.readouterr().out


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
@pytest.mark.slow
def test_json_alone_on_stdout():
    environment = {
        "PYTHONPATH": str(Path(groundup.__file__).parents[1]),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "groundup", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    assert "python" in done.stderr


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_a_failing_check_sets_the_exit_code(monkeypatch):
    monkeypatch.setattr(checkup, "checks", lambda: [Check("torch", "fail", "not found", "pip install torch")])
    result = Doctor().run()
    assert not result["ok"]
    assert Doctor().exit_code(result) == 1


def test_a_broken_check_does_not_hide_the_others(monkeypatch):
    def speed():
        raise OSError("no such machine")
        yield

    monkeypatch.setattr(checkup, "speed", speed)
    found = by_name(checkup.checks())
    assert found["speed"].verdict == "fail"
    assert "no such machine" in found["speed"].found
    assert found["compute"].verdict == "ok"


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_old_torch(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert by_name(checkup.torch_build())["torch"].verdict == "fail"
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    assert by_name(checkup.torch_build())["torch"].verdict == "ok"


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_wrong_arithmetic_is_found(monkeypatch):
    import torch

    arange = torch.arange
    monkeypatch.setattr(torch, "arange", lambda n: arange(n) * float("nan"))
    assert by_name(checkup.compute())["compute"].verdict == "fail"


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_no_compiler(monkeypatch):
    monkeypatch.setattr(checkup.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert by_name(checkup.compiler())["compiler"].verdict == "warn"


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_folder_that_cannot_be_written(monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkup.tempfile, "NamedTemporaryFile", refuse)
    assert by_name(checkup.writing())["writing"].verdict == "fail"


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_missing_packages_are_named_with_their_line(monkeypatch):
    required = ["torch>=2.11", "no-such-core>=1", 'plotly>=6; extra == "plots"', 'no-such-web>=1; extra == "web"']
    monkeypatch.setattr(checkup.importlib.metadata, "requires", lambda name: required)
    found = by_name(checkup.packages())
    assert (found["packages"].verdict, found["packages"].found) == ("fail", "missing: no-such-core")
    assert found["[plots]"].verdict == "ok"
    assert (found["[web]"].verdict, found["[web]"].advice) == ("warn", "pip install 'groundup[web]'")


@pytest.mark.row(
    "EDU-18", reference="property: the machine that runs the tests is sound, and each injected fault is named"
)
def test_too_many_threads(monkeypatch):
    monkeypatch.setattr(checkup, "available_processors", lambda: 0)
    assert by_name(checkup.threads())["threads"].verdict == "warn"


@pytest.mark.row("EDU-18", reference="hand calculation: the structures of the Windows and macOS interfaces, simulated")
@pytest.mark.parametrize("system", ["Windows", "macOS"])
def test_memory_on_other_systems(system, monkeypatch, tmp_path):
    """Neither has /proc; Windows has no sysconf, no getrusage and no control groups either."""
    import ctypes
    import os
    import types

    from groundup.base.device import Memory, host_memory

    def global_memory_status(reference):
        words = ctypes.cast(reference._obj, ctypes.POINTER(ctypes.c_uint32))
        assert words[0] == 64  # sizeof(MEMORYSTATUSEX), which the call demands
        reference._obj[1], reference._obj[2] = 16 << 30, 5 << 30
        return 1

    if system == "Windows":
        kernel = types.SimpleNamespace(GlobalMemoryStatusEx=global_memory_status)
        monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=kernel), raising=False)
        monkeypatch.delattr(os, "sysconf")
        monkeypatch.setitem(sys.modules, "resource", None)
        assert host_memory(tmp_path) == Memory(16 << 30, 5 << 30, 0)
    else:
        monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 16384}.__getitem__)
        found = host_memory(tmp_path)
        assert (found.total, found.free) == (16 << 30, 16 << 30)
        assert found.peak > 0


def test_no_part_of_the_package_that_every_command_loads_needs_posix():
    """Modules that Windows lacks are imported inside functions, and only by the sandbox's worker at the top."""
    root = Path(groundup.__file__).parent
    for path in root.rglob("*.py"):
        if path.name == "sandbox_worker.py":
            continue
        top = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("import ", "from "))]
        absent = {f"import {name}" for name in ("resource", "fcntl", "pwd", "grp", "termios", "pty")}
        assert not absent & set(top), path
