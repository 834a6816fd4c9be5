"""What numba keeps of a folder is forgotten when any of its files changes."""

import os
import subprocess
import sys

import pytest

from groundup.base.compiled_functions import forget_if_changed

CALLED = "import numba\n@numba.njit(cache=True)\ndef called():\n    return {}\n"
CALLER = "import numba\nfrom called import called\n@numba.njit(cache=True)\ndef caller():\n    return called()\n"


def test_compiled_files_stay_while_nothing_changes_and_go_when_any_file_does(tmp_path):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    assert not forget_if_changed(tmp_path)
    compiled = tmp_path / "__pycache__" / "a.f-1.py311.nbi"
    compiled.write_text("")
    assert not forget_if_changed(tmp_path)
    assert compiled.exists()
    (tmp_path / "b.py").write_text("3")
    assert forget_if_changed(tmp_path)
    assert not compiled.exists()
    assert not forget_if_changed(tmp_path)


def test_what_was_compiled_before_there_was_a_fingerprint_is_not_trusted(tmp_path):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.f-1.py311.nbc").write_text("")
    assert forget_if_changed(tmp_path)


def test_a_caller_is_compiled_again_when_what_it_calls_has_changed(tmp_path):
    """The defect itself: without the fingerprint numba goes on with the old number."""
    pytest.importorskip("numba")

    def called_with(number, forget):
        (tmp_path / "called.py").write_text(CALLED.format(number))
        (tmp_path / "caller.py").write_text(CALLER)
        os.utime(tmp_path / "caller.py", (1, 1))
        if forget:
            forget_if_changed(tmp_path)
        code = "from caller import caller; print(caller())"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert called_with(1, forget=True) == 1
    assert called_with(22, forget=False) == 1  # stale
    assert called_with(333, forget=True) == 333
