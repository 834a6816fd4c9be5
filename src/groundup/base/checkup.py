"""What a machine and an installation must have, checked one by one: the substance of `groundup doctor`."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.base.device import host_memory, memory
from groundup.base.threads import available_processors

GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One finding. fail: nothing works without it; warn: something is slow or missing; `advice` says what to do."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def checks() -> Iterator[Check]:
    """Every check in turn; one that breaks is a failing check, never the end of the others."""
    for check in (python, torch_build, compute, speed, threads, ram, disk, gpu, compiler, writing, text, packages):
        try:
            yield from check()
        except Exception as error:  # a doctor reports whatever is broken
            yield Check(
                check.__name__, "fail", f"{type(error).__name__}: {error}", "see the message; ask with it in an issue"
            )


def python() -> Iterator[Check]:
    """The interpreter's version, and whether it is an environment of its own."""
    found = f"{platform.python_version()} on {platform.platform(terse=True)}"
    if sys.prefix == sys.base_prefix:
        yield Check(
            "python", "warn", f"{found}, not in a virtual environment", "python3 -m venv .venv keeps packages apart"
        )
    else:
        yield Check("python", "ok", found)


def torch_build() -> Iterator[Check]:
    """The version of torch and the processor features that it uses."""
    try:
        import torch
    except ImportError as error:
        yield Check(
            "torch", "fail", str(error), "pip install torch (https://pytorch.org tells the build for your machine)"
        )
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    found = f"{torch.__version__}, {build}, {torch.backends.cpu.get_cpu_capability()}"
    if numbers < (2, 11):
        yield Check("torch", "fail", found, "pip install 'torch>=2.11'")
    else:
        yield Check("torch", "ok", found)


def compute() -> Iterator[Check]:
    """A least-squares fit by gradient descent must find the weights that made the data."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x, truth = torch.randn(256, 8, generator=generator), torch.arange(8.0)
    w = torch.zeros(8, requires_grad=True)
    for _ in range(100):
        ((x @ w - x @ truth) ** 2).mean().backward()
        with torch.no_grad():
            assert w.grad is not None
            w -= 0.2 * w.grad
            w.grad = None
    error = (w - truth).abs().max().item()
    if error < 1e-3:
        yield Check("compute", "ok", f"gradient descent finds a known answer (error {error:.0e})")
    else:
        yield Check(
            "compute",
            "fail",
            f"gradient descent misses a known answer by {error:.2g}",
            "reinstall torch: its arithmetic is wrong",
        )


def speed() -> Iterator[Check]:
    """Matrix products and memory, measured."""
    from groundup.base.peak import copy_bandwidth

    fp32, bf16 = gemm_gflops("float32"), gemm_gflops("bfloat16")
    copy = copy_bandwidth(megabytes=64, seconds=0.2) / 1e9
    found = f"matrix products {fp32:,.0f} GFLOP/s in float32, {bf16:,.3g} in bfloat16; copy {copy:.0f} GB/s"
    if bf16 < fp32:
        found += "; float32 is the faster dtype here"
    slow = fp32 < 10
    yield Check(
        "speed", "warn" if slow else "ok", found, "other programs may be busy; training will be slow" if slow else ""
    )


def gemm_gflops(dtype: str) -> float:
    """GFLOP/s at size 1024; at 192 where the dtype is emulated, as a large product would take seconds there."""
    from groundup.base.peak import gemm_flops

    small = gemm_flops("cpu", dtype, size=192, seconds=0.2) / 1e9
    emulated = dtype != "float32" and small < 2
    return small if emulated else gemm_flops("cpu", dtype, seconds=0.3) / 1e9


def threads() -> Iterator[Check]:
    """Processors that may be used, and what torch will use."""
    import torch

    cores, used = available_processors(), torch.get_num_threads()
    found = f"{cores} processors, torch uses {used} threads"
    asked = os.environ.get("OMP_NUM_THREADS")
    if used > cores:
        yield Check(
            "threads", "warn", found, f"export OMP_NUM_THREADS={cores}: more threads than processors are slower"
        )
    elif used < cores and asked:
        yield Check("threads", "warn", f"{found} (OMP_NUM_THREADS={asked})", "unset OMP_NUM_THREADS to use them all")
    else:
        yield Check("threads", "ok", found)


def ram() -> Iterator[Check]:
    """Memory, within the container's limit."""
    have = host_memory()
    found = f"{have.free / GIB:.1f} GiB free of {have.total / GIB:.1f}"
    if have.free < 2 * GIB:
        yield Check("memory", "warn", found, "quickstart needs about 2 GiB: close other programs")
    else:
        yield Check("memory", "ok", found)


def disk() -> Iterator[Check]:
    """Room where runs are written."""
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / GIB:.1f} GiB free in {Path.cwd()}"
    if free < 2 * GIB:
        yield Check("disk", "warn", found, "make room: checkpoints are large")
    else:
        yield Check("disk", "ok", found)


def gpu() -> Iterator[Check]:
    """CUDA devices or Apple's MPS; a driver without a CUDA build of torch is worth a word."""
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        have = memory(torch.device("cuda", index))
        found = f"{torch.cuda.get_device_name(index)}, {have.free / GIB:.0f} GiB free of {have.total / GIB:.0f}"
        yield Check(f"gpu {index}", "ok", found)
    if torch.cuda.is_available():
        return
    if torch.backends.mps.is_available():
        yield Check("gpu", "ok", "Apple MPS")
    elif shutil.which("nvidia-smi"):
        advice = "install torch's CUDA build: https://pytorch.org/get-started/locally"
        yield Check("gpu", "warn", "an NVIDIA driver, but torch sees no CUDA device", advice)
    else:
        yield Check("gpu", "ok", "none: everything runs on the processor")


def compiler() -> Iterator[Check]:
    """A C++ compiler, which torch.compile needs on a processor."""
    name = os.environ.get("CXX") or next((name for name in ("g++", "clang++", "c++", "cl") if shutil.which(name)), "")
    if name:
        yield Check("compiler", "ok", f"{name}: torch.compile can be used")
    else:
        advice = (
            "Debian, Ubuntu: apt install g++; macOS: xcode-select --install; Windows: Visual Studio's C++ build tools"
        )
        yield Check("compiler", "warn", "no C++ compiler: compiled parts run eagerly, slower", advice)


def writing() -> Iterator[Check]:
    """Whether runs can be written here."""
    folder = Path.cwd()
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            started = time.perf_counter()
            file.write(b"x" * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield Check("writing", "fail", f"{folder}: {error.strerror}", "go to a folder of your own, or give --out-dir")
        return
    yield Check("writing", "ok", f"{folder} (1 MiB safely on disk in {1e3 * (time.perf_counter() - started):.0f} ms)")


def text() -> Iterator[Check]:
    """Text files and the terminal speak UTF-8."""
    import locale

    encodings = {locale.getpreferredencoding(False), sys.stdout.encoding or "utf-8", sys.getfilesystemencoding()}
    strange = sorted(name for name in encodings if name.lower().replace("-", "") != "utf8")
    if strange:
        yield Check("text", "warn", f"not UTF-8: {', '.join(strange)}", "export PYTHONUTF8=1 LANG=C.UTF-8")
    else:
        yield Check("text", "ok", "UTF-8 in files and terminal")


def packages() -> Iterator[Check]:
    """What groundup needs, and what its extras add; as the installed package itself declares it."""
    try:
        required = importlib.metadata.requires("groundup") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "packages", "warn", "groundup runs from its source, not installed", "pip install -e . in the checkout"
        )
        return
    missing: dict[str, list[str]] = defaultdict(list)
    groups: dict[str, None] = {"": None}
    for requirement in required:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        group = extra[1] if extra else ""
        groups[group] = None
        if name and name[0] != "groundup" and not is_installed(name[0]):
            missing[group].append(name[0])
    yield from (package_check(group, missing[group]) for group in groups if group != "all")


def package_check(group: str, missing: list[str]) -> Check:
    """The check of one extra, or of the core where `group` is empty."""
    name = f"[{group}]" if group else "packages"
    if not missing:
        return Check(name, "ok", "complete")
    install = f"pip install 'groundup{f'[{group}]' if group else ''}'"
    return Check(name, "warn" if group else "fail", f"missing: {', '.join(missing)}", install)


def is_installed(package: str) -> bool:
    """Whether a distribution of that name is here."""
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False
