"""Optimizer state in a file that is mapped into memory: what QLoRA's paged optimizers do between a GPU and its host
(Dettmers et al. 2023), here between memory and disk.

The system keeps its pages in memory while there is room, writes them out when others need it, and brings them back when
a step touches them; the numbers are the same. The file has no name, so it goes with the process that mapped it.
"""

import os
import tempfile

import torch
from torch import Tensor

from groundup.base.errors import UsageError


def paged_zeros(like: Tensor) -> Tensor:
    """Zeros in the shape and dtype of a tensor, mapped from a file in the folder for temporary files (`TMPDIR`).

    Raises:
        UsageError: the tensor lies on another device than the CPU.
    """
    if like.device.type != "cpu":
        raise UsageError(f"paged optimizer state lies in a file beside the CPU, the weights are on {like.device}")
    if not like.numel():
        return torch.zeros_like(like)
    handle, path = tempfile.mkstemp(prefix="groundup-optimizer-")
    try:
        os.truncate(handle, like.nbytes)  # zeros that take no place before they are written
        flat = torch.from_file(path, shared=True, size=like.numel(), dtype=like.dtype)
    finally:
        os.close(handle)
        os.unlink(path)
    return flat.view(like.shape)
