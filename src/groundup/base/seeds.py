"""Random numbers: one seed for all generators, their state as JSON, and what "reproducible" means here.

Levels of determinism:
    seeded          the same seed, machine, versions, device and thread count give the same numbers. On a CPU this is
    bit for bit;
                    on CUDA some kernels add in an order that varies, and differ in the last bits. The default.
    deterministic   `require_determinism()` besides: torch uses deterministic kernels, raises where there is none, and
    CUDA
                    becomes bit for bit as well, at some cost in speed.
Other machines, thread counts or versions of torch may differ in the last bits at either level.
"""

import base64
import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

from groundup.base.errors import CheckpointError, UsageError


def seed_everything(seed: int) -> None:
    """Seed Python's `random`, NumPy's global generator and torch on all devices.

    Raises:
        UsageError: the seed is not in [0, 2^32), NumPy's range.
    """
    import numpy
    import torch

    if not 0 <= seed < 2**32:
        raise UsageError(f"the seed must be in [0, 2^32), found {seed}")
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def require_determinism(active: bool = True) -> None:
    """Let torch use deterministic kernels only; call it before the first CUDA operation."""
    import torch

    if active:
        # cuBLAS needs a fixed workspace to be deterministic.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(active)
    torch.backends.cudnn.benchmark = False


def rng_state() -> dict[str, Any]:
    """The state of all generators as JSON-able values; `set_rng_state` continues from it bit for bit."""
    import numpy
    import torch

    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(kind), _text(numpy.asarray(keys).tobytes()), int(position), int(has_gauss), float(cached)],
        "torch": _text(torch.get_rng_state().numpy().tobytes()),
        "cuda": [_text(state.numpy().tobytes()) for state in cuda],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned, also after a way through JSON.

    CUDA states are restored for the devices that are here; those of further devices are left out.

    Raises:
        CheckpointError: the state is damaged.
    """
    import numpy
    import torch

    try:
        version, internal, gauss = state["python"]
        kind, keys, position, has_gauss, cached = state["numpy"]
        words = numpy.frombuffer(base64.b64decode(keys), dtype=numpy.uint32)
        torch_state = _tensor(state["torch"])
        cuda_states = [_tensor(text) for text in state["cuda"]]
        random.setstate((version, tuple(internal), gauss))
        numpy.random.set_state((kind, words, position, has_gauss, cached))
        torch.set_rng_state(torch_state)
        if torch.cuda.is_available():
            for device, cuda_state in zip(range(torch.cuda.device_count()), cuda_states, strict=False):
                torch.cuda.set_rng_state(cuda_state, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the saved state of the random generators is damaged: {error!r}") from None


@contextlib.contextmanager
def fork_rng(seed: int | None = None) -> Iterator[None]:
    """Inside the block random numbers are drawn apart, from `seed` where given; afterwards nothing has changed."""
    before = rng_state()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        set_rng_state(before)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _tensor(text: str) -> Any:
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
