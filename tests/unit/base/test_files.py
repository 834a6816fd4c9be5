"""Atomic writes, safe names and strict JSON."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from groundup.base.errors import CheckpointError, GroundupError
from groundup.base.files import atomic_file, atomic_folder, check_writable, read_json, safe_join, sha256, write_atomic


@contextlib.contextmanager
def largest_file(size):
    """As a full disk: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_atomic_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "größer")
    write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert os.listdir(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert sha256(path) == "b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2"


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")
    with largest_file(1000), pytest.raises(GroundupError, match=r"file\.bin.*larger than the limit"):
        write_atomic(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def write_part_and_fail(folder):
    assert os.listdir(folder) == []
    (folder / "part").write_text("part")
    raise ZeroDivisionError


def test_error_inside_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "f") as temporary:
        temporary.write_text(f"part {1 / 0}")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "d") as folder:
        write_part_and_fail(folder)
    assert os.listdir(tmp_path) == []


def test_errors_of_other_files_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "d"):
        os.stat("/no/such/file")


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for path in ("file/below", tmp_path / "file" / "deep" / "below"):
        with pytest.raises(GroundupError, match=r"cannot write .*a file, not a folder"):
            write_atomic(path, "x")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/groundup", "there is no such folder"),
        ("/proc/self/groundup/deep", "there is no such folder"),
        ("a" * 300, "the name is longer"),
        ("file", "a file, not a folder"),
        ("file/deep", "a file, not a folder"),
        ("loop/deep", "a file, not a folder|in a circle"),
    ],
)
def test_a_folder_that_cannot_be_written_is_said_beforehand(tmp_path, monkeypatch, place, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(GroundupError, match=f"cannot write {place}: .*({reason})"):
        check_writable(place)
    if place.startswith("/proc"):
        for write in (lambda: write_atomic(place, "x"), lambda: atomic_folder(place).__enter__()):
            with pytest.raises(GroundupError, match=f"cannot write {place}: there is no such folder"):
                write()
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("1")
    check_writable(tmp_path / "full")
    assert os.listdir(tmp_path) == ["full"]
    assert os.listdir(tmp_path / "full") == ["kept"]


def test_a_file_that_was_to_be_read_is_not_a_failed_write(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "d") as folder:
        (folder / "weights").read_bytes()
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "f"):
        (tmp_path / "source").read_bytes()


def test_what_is_no_file_is_told_apart(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("", "is a folder: name a file"), ("pipe", "is not a regular file"), ("none", "no file at")):
        with pytest.raises(CheckpointError, match=what):
            read_json(tmp_path / name)


def test_folder_is_whole_or_the_old_one(tmp_path):
    path = tmp_path / "checkpoint"
    with atomic_folder(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text("1")
        assert not path.exists()
    assert (path / "deep" / "a").read_text() == "1"
    with pytest.raises(GroundupError, match="exists already"), atomic_folder(path):
        pass
    with largest_file(1000), pytest.raises(GroundupError, match="checkpoint"), atomic_folder(path, True) as folder:
        (folder / "a").write_bytes(b"x" * 5000)
    assert (path / "deep" / "a").read_text() == "1"
    with atomic_folder(path, replace=True) as folder:
        (folder / "b").write_text("2")
    assert os.listdir(path) == ["b"]
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_kill_between_the_renames_is_mended(tmp_path):
    (tmp_path / ".d.old").mkdir()
    (tmp_path / ".d.old" / "good").write_text("1")
    (tmp_path / ".d.partial").mkdir()
    (tmp_path / ".d.partial" / "half").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "d", replace=True) as folder:
        write_part_and_fail(folder)
    assert os.listdir(tmp_path) == ["d"]
    assert os.listdir(tmp_path / "d") == ["good"]


WRITER = """
import sys
from groundup.base.files import atomic_folder
for i in range(100_000):
    with atomic_folder(sys.argv[1], replace=True) as folder:
        for name in "abc":
            (folder / name).write_text(str(i))
    print(i, flush=True)
"""


def test_killed_writers_never_leave_a_mixture(tmp_path):
    """SIGKILL at 8 moments: the folder, or the one set aside, is whole and of one generation."""
    path = tmp_path / "d"
    for delay in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        whole = path if path.exists() else tmp_path / ".d.old"
        assert len({(whole / name).read_text() for name in "abc"}) == 1


@pytest.mark.parametrize(
    "name", ["", "../x", "a/../../x", "/etc/passwd", "C:\\x", "..\\x", "a\0b", "absent", "pipe", "sub"]
)
def test_safe_join_refuses(tmp_path, name):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (tmp_path / "x").write_text("secret")
    with pytest.raises(CheckpointError, match="folder"):
        safe_join(folder, name)


def test_safe_join_follows_links_inside_only(tmp_path):
    folder, blobs = tmp_path / "folder", tmp_path / "blobs"
    for path in (folder / "a", blobs / "b", tmp_path / "secret"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    (folder / "inside").symlink_to("a")
    (folder / "blob").symlink_to(blobs / "b")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    assert safe_join(folder, "inside") == folder / "a"
    assert safe_join(tmp_path / "link", "a") == folder / "a"
    assert safe_join(folder, "blob", also=blobs) == blobs / "b"
    for name in ("blob", "out", "up/secret"):
        with pytest.raises(CheckpointError, match="outside the folder"):
            safe_join(folder, name)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1,\n "b": }', "line 2, column 7"),
        ('{"a": NaN}', "NaN"),
        ('{"a": [-Infinity]}', "Infinity"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ("[" * 70 + "]" * 70, "nested deeper than 64"),
        ("[" * 100_000, "nested deeper than 64"),
        ("9" * 5000, "j.json"),
        (b'{"\xff": 1}', "byte 2 is not UTF-8"),
        ("", "line 1"),
        ("[" + "1," * 600 + "1]", "larger than 1,000 bytes"),
    ],
)
def test_read_json_refuses_and_names_the_file(tmp_path, text, fault):
    path = tmp_path / "j.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    limit = 1000 if "larger" in fault else 10**6
    with pytest.raises(CheckpointError, match=fault) as caught:
        read_json(path, max_bytes=limit)
    assert "j.json" in str(caught.value)


def test_read_json_reads(tmp_path):
    (tmp_path / "j.json").write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null, "\xc3\xa9"]}')
    assert read_json(tmp_path / "j.json") == {"a": [1, 2.5, None, "é"]}
    assert read_json(tmp_path / "j.json", max_depth=2) is not None
    with pytest.raises(CheckpointError, match="deeper"):
        read_json(tmp_path / "j.json", max_depth=1)
    with pytest.raises(CheckpointError, match="no file"):
        read_json(tmp_path / "none.json")
