"""Plain data parallelism: every rank holds the model, takes its share of each batch's rows, and adds the gradients.

Start with `torchrun --nproc-per-node N -m groundup train ...`. Because the loop divides by the weight of the whole
batch, a sum over ranks gives the gradient of one process. Sums travel in flat buckets: one large message costs less
than many small ones. A rank that dies or hangs is noticed by the others after `timeout`, who stop with an error.
"""

import datetime
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from groundup.base.errors import GroundupError
from groundup.training.objectives.objective import Batch

BUCKET_BYTES = 64 * 1024**2


class WorkerError(GroundupError):
    """Another rank died or does not answer."""


class Workers:
    """The ranks of this training; one process alone is a group of one and exchanges nothing."""

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1, owner: bool = False):
        self.device, self.rank, self.size = device, rank, size
        self._owner = owner

    @classmethod
    def start(cls, device: torch.device, timeout: float) -> "Workers":
        """Join the group that torchrun describes in the environment, or use the one that exists.

        Args:
            device: where the model is: decides between gloo (CPU) and nccl.
            timeout: seconds after which a rank that does not answer counts as lost.
        """
        if not dist.is_available():
            return cls(device)
        owner = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
        if owner:
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout))
        if not dist.is_initialized():
            return cls(device)
        return cls(device, dist.get_rank(), dist.get_world_size(), owner)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.rank == 0

    def share(self, batch: Batch, together: int = 1) -> Batch:
        """This rank's rows of a batch: every `size`-th group of `together` rows."""
        if self.size == 1:
            return batch
        rows = next(len(value) for value in batch.values() if isinstance(value, Tensor))
        own = [row for row in range(rows) if row // together % self.size == self.rank]
        return {
            name: value[own] if isinstance(value, Tensor) else [value[row] for row in own]
            for name, value in batch.items()
        }

    def sum(self, values: Sequence[float]) -> list[float]:
        """Numbers added over the ranks."""
        if self.size == 1:
            return list(values)
        # Counts and losses are added in fp64, so that 2^24 tokens are still counted one by one.
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._reduce(total)
        return total.tolist()

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Tensors added over the ranks, in place; every rank gives the same shapes in the same order."""
        if self.size == 1:
            return
        for bucket in buckets(tensors):
            if len(bucket) == 1 and bucket[0].is_contiguous():
                self._reduce(bucket[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            self._reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        for tensor in tensors if self.size > 1 else ():
            self._guard(lambda tensor=tensor: dist.broadcast(tensor, 0))

    def gather(self, values: list[str]) -> list[str]:
        """Every rank's texts, in the order of the ranks."""
        if self.size == 1:
            return values
        found: list[list[str]] = [[] for _ in range(self.size)]
        self._guard(lambda: dist.all_gather_object(found, values))
        return [value for part in found for value in part]

    def wait(self) -> None:
        """Until every rank is here."""
        self.sum([0.0])

    def stop(self) -> None:
        """Leave the group, if this object joined it."""
        if self._owner and dist.is_initialized():
            dist.destroy_process_group()
            self._owner = False

    def _reduce(self, tensor: Tensor) -> None:
        self._guard(lambda: dist.all_reduce(tensor))

    def _guard(self, exchange) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise WorkerError(
                f"rank {self.rank} of {self.size} lost contact with another rank: it died or hangs "
                f"({str(error).splitlines()[0]}). Start again with the same command to go on from the last checkpoint"
            ) from error


def buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one dtype, up to BUCKET_BYTES together."""
    found: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if not found or size > room or found[-1][-1].dtype != tensor.dtype:
            found.append([])
            room = BUCKET_BYTES
        found[-1].append(tensor)
        room -= size
    return found
