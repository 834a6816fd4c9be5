"""Where tensors live, in which dtype, and how much memory there is. torch is imported when a function needs it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from groundup.base.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Memory:
    """Bytes on a device: all there is, what is free now, and the most this process has held."""

    total: int
    free: int
    peak: int


def choose_device(name: "str | torch.device" = "auto") -> "torch.device":
    """The device for "auto" (CUDA, else Apple's MPS, else CPU), "cpu", "cuda", "cuda:1" or "mps".

    Under torchrun a CUDA device without a number is this rank's own, cuda:LOCAL_RANK, which also becomes the current
    one.

    Raises:
        UsageError: an unknown name, or a device that this machine or this torch does not have.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if str(name) == "auto":
        return _own(torch.device(next(kind for kind, here in present.items() if here)))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"`{name}` is not a device.{did_you_mean(str(name), present)} One of: auto, cpu, cuda, mps"
        ) from None
    if not present.get(device.type, device.type == "meta"):
        here = ", ".join(kind for kind, here in present.items() if here)
        raise UsageError(f"no {device.type} device is usable here (torch {torch.__version__} sees: {here}): use `auto`")
    device = _own(device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no {device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _own(device: "torch.device") -> "torch.device":
    """cuda:LOCAL_RANK for a CUDA device without a number in a process that torchrun started; else as given."""
    import torch

    rank = os.environ.get("LOCAL_RANK", "")
    if device.type != "cuda" or device.index is not None or not rank.isdecimal():
        return device
    if int(rank) >= torch.cuda.device_count():
        raise UsageError(
            f"local rank {rank} has no CUDA device: this machine has {torch.cuda.device_count()}, so start at most so "
            "many processes here (torchrun --nproc-per-node), or use --device cpu"
        )
    own = torch.device("cuda", int(rank))
    torch.cuda.set_device(own)
    return own


def choose_dtype(name: "str | torch.dtype" = "auto", device: "str | torch.device" = "auto") -> "torch.dtype":
    """The torch dtype for a name; "auto" is bfloat16 on CUDA devices that compute in it, float16 on older ones, else
    float32.

    Raises:
        UsageError: an unknown name.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        if choose_device(device).type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    short = name.removeprefix("torch.")
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(short, short)
    if short not in known:
        raise UsageError(f"`{name}` is not a dtype.{did_you_mean(short, known)} One of: auto, {', '.join(known)}")
    return known[short]


def synchronize(device: "str | torch.device") -> None:
    """Wait until the device has done what was asked of it; needed before reading a clock. Nothing to do on a CPU."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def memory(device: "str | torch.device") -> Memory:
    """Memory of the device; on a CPU that of the container or machine, with this process's peak resident size."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free, peak_memory(device))
    if kind == "mps":
        total = torch.mps.recommended_max_memory()
        used = peak_memory(device)
        return Memory(total, max(total - used, 0), used)
    return host_memory()


def peak_memory(device: "str | torch.device") -> int:
    """The most bytes that this process has held: tensors on a CUDA device, what the driver holds now on MPS, else all
    of the process, Python and torch included.
    """
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return torch.mps.driver_allocated_memory() if kind == "mps" else _peak_resident()


def host_memory(root: Path = Path("/")) -> Memory:
    """The CPU's memory, within the limit of the container (control groups 2 and 1). `root` stands for / in tests."""
    total, free = _machine_memory(root)
    for limit_file, used_file in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, used = _number(root / limit_file), _number(root / used_file)
        if limit is not None and limit < total:
            total, free = limit, min(free, max(limit - (used or 0), 0))
    return Memory(total, free, _peak_resident())


def _peak_resident() -> int:
    """Peak resident size of this process in bytes; 0 on Windows, which has no getrusage."""
    try:
        import resource
    except ImportError:
        return 0
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _machine_memory(root: Path) -> tuple[int, int]:
    """(total, available) bytes from /proc/meminfo (Linux), sysconf (macOS) or GlobalMemoryStatusEx (Windows)."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        if not hasattr(os, "sysconf"):
            return _windows_memory()
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return values["MemTotal"], values.get("MemAvailable", values["MemFree"])


def _windows_memory() -> tuple[int, int]:
    import ctypes

    # MEMORYSTATUSEX: its own length and the load in percent (4 bytes each), total and available memory, five more.
    status = (ctypes.c_uint64 * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return status[1], status[2]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None
