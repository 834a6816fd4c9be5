"""Devices, dtypes, memory, threads and seeds."""

import json
import os
import random
import subprocess
import sys

import numpy
import pytest
import torch

from groundup.base import threads
from groundup.base.device import choose_device, choose_dtype, host_memory, memory, synchronize
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.seeds import fork_rng, require_determinism, rng_state, seed_everything, set_rng_state
from groundup.base.threads import available_processors, default_threads, set_threads


def draw():
    return random.random(), random.gauss(0, 1), numpy.random.rand(), numpy.random.randn(), torch.randn(3).tolist()


def test_same_seed_same_numbers():
    with fork_rng():
        seed_everything(7)
        first = draw()
        seed_everything(7)
        assert draw() == first
        seed_everything(8)
        assert draw() != first
    for wrong in (-1, 2**32):
        with pytest.raises(UsageError, match="seed"):
            seed_everything(wrong)


def test_state_goes_through_json():
    with fork_rng(3):
        draw()  # an odd number of Gaussians: Python and NumPy keep one in hand
        saved = json.loads(json.dumps(rng_state()))
        expected = [draw(), draw()]
        set_rng_state(saved)
        assert [draw(), draw()] == expected


def check_then_fail(expected):
    assert draw() == expected
    raise ZeroDivisionError


def test_fork_rng_leaves_no_trace():
    before = rng_state()
    with fork_rng(5):
        inside = draw()
    assert rng_state() == before
    with pytest.raises(ZeroDivisionError), fork_rng(5):
        check_then_fail(inside)
    assert rng_state() == before


@pytest.mark.parametrize("key", ["python", "numpy", "torch", "cuda"])
@pytest.mark.parametrize("value", [None, [], "!", [3, [1], None]])
def test_damaged_state_is_refused(key, value):
    before = rng_state()
    if key == "cuda" and value == []:
        return  # no devices: sound
    with pytest.raises(CheckpointError, match="random generators"):
        set_rng_state({**before, key: value})
    set_rng_state(before)


def test_require_determinism():
    require_determinism()
    try:
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        require_determinism(False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("meta")).type == "meta"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else choose_device("auto").type)
    with pytest.raises(UsageError, match="Did you mean `cuda`"):
        choose_device("cudaa")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="use `auto`"):
            choose_device("cuda")
    synchronize("cpu")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_rank_takes_its_own_cuda_device(monkeypatch, name):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device(name) == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device(name) == torch.device("cuda:3")
    assert current == [torch.device("cuda:3")]
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UsageError, match="local rank 4 has no CUDA device: this machine has 4"):
        choose_device(name)


def test_dtypes():
    assert choose_dtype("bfloat16") is choose_dtype("torch.bfloat16") is choose_dtype(torch.bfloat16) is torch.bfloat16
    assert choose_dtype("auto", "cpu") is torch.float32
    with pytest.raises(UsageError, match="Did you mean `float16`"):
        choose_dtype("float_16")


def test_memory_of_this_machine():
    figures = memory("cpu")
    assert 0 < figures.peak < figures.total
    assert 0 <= figures.free <= figures.total


def tree(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_memory_of_a_container(tmp_path):
    tree(tmp_path, proc__meminfo="MemTotal: 64000 kB\nMemFree: 1 kB\nMemAvailable: 50000 kB\n")
    assert (host_memory(tmp_path).total, host_memory(tmp_path).free) == (64_000 * 1024, 50_000 * 1024)
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.max").write_text("max\n")
    assert host_memory(tmp_path).total == 64_000 * 1024
    (cgroup / "memory.max").write_text("1000000\n")
    (cgroup / "memory.current").write_text("400000\n")
    assert (host_memory(tmp_path).total, host_memory(tmp_path).free) == (1_000_000, 600_000)


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/pod/box\n", {"cpu.max": "max 100000", "pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 1"}, 3),
        (
            "4:cpu,cpuacct:/docker/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("4:memory:/\n0::/../..\n", {"cpu.max": "junk"}, 64),
    ],
)
def test_processors_within_the_quota(tmp_path, monkeypatch, group, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert available_processors(tmp_path) == expected


def test_threads(monkeypatch):
    monkeypatch.setattr(threads, "available_processors", lambda: 6)
    for value, expected in (("3", 3), ("4,2", 4), ("", 6), ("many", 6), ("0", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_threads() == expected
    before = torch.get_num_threads()
    try:
        assert set_threads(2) == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(UsageError, match="threads"):
        set_threads(0)


def test_base_imports_no_heavy_library():
    names = "device files folders hf_config hub safetensors_header seeds shards threads"
    code = f"import sys; [__import__('groundup.base.' + n) for n in {names.split()!r}]; " + (
        "print([n for n in ('torch', 'numpy', 'safetensors', 'huggingface_hub', 'transformers') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
