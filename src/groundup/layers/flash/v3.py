"""FlashAttention-3 (Shah et al. 2024): the same tiles on a GPU whose units work at once, and in 8 bits.

Version 2 leaves a Hopper GPU half idle: its tensor cores wait while exponentials are computed, which cost as much time
as one of the two products of a tile. Version 3 changes when things are done, not what is computed:

- Producer and consumers. Some warps only copy the next keys and values into a ring of buffers, others compute.
- Ping-pong. Two groups of warps have a block of queries each; while one computes its softmax, the other multiplies.
- Pipelining. Within a group, the scores of the next tile are begun before the softmax of this one: `pipelined`.

`tasks` lists who does what after what, and `run` plays it on units that do one thing at a time: a simulation that shows
the order and the idle time, not the speed of a GPU.

In 8 bits (e4m3: three bits of mantissa) errors are kept small in two ways, which compute on any device here:

- Block quantisation: a scale for each tile of queries, keys and values, not one for all.
- Incoherent processing: q and k are multiplied by the same random orthogonal matrix, which leaves q k as it is and
  spreads outliers over all features. Here random signs and a Hadamard matrix, d log d additions a vector.

`Flash3Core` calls the kernel itself where a Hopper GPU and its package are.
"""

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.attention import AttentionCore
from groundup.layers.flash.tiles import Blocks, OnlineSoftmax, TileMask, by_group, spans
from groundup.layers.masks import Mask

Schedule = Literal["one after another", "ping-pong", "pipelined", "both"]
LARGEST = 448.0
"""The largest number of e4m3."""


# -- when things are done ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Attributes:
        name: "S" (scores), "P" (softmax) or "O" (add to the result) of a group's tile, or "KV" (the copy of a tile).
        group, tile: whose, and which.
        unit: what does it: "tensor", "exp" or "copy".
        time: how long it takes.
        after: what must be done before: (name, group, tile).
    """

    name: str
    group: int
    tile: int
    unit: str
    time: float
    after: tuple[tuple[str, int, int], ...]


def tasks(schedule: Schedule, tiles: int, softmax: float = 1.0, copy: float = 0.5, stages: int = 2) -> list[Task]:
    """The work on so many tiles of keys, in program order.

    Args:
        schedule: one group of warps or two ("ping-pong", "both"), each doing one thing after the other, or with the
            scores of the next tile begun early ("pipelined", "both").
        tiles: of keys.
        softmax: time of the exponentials of a tile, in times of one product. On an H100 with heads of 128: about 1.
        copy: time to bring in the keys and values of a tile.
        stages: tiles that the ring of buffers holds.
    """
    groups = 2 if schedule in ("ping-pong", "both") else 1
    early = schedule in ("pipelined", "both")
    found = []
    for j in range(tiles):
        freed = tuple(("O", g, j - stages) for g in range(groups) if j >= stages)
        found.append(Task("KV", 0, j, "copy", copy, freed))
        for g in range(groups):
            # S waits for its keys, and for what the group did before: all of the last tile, or its scores alone
            before = ("S", g, j - 1) if early else ("O", g, j - 1)
            room = (("O", g, j - 2),) if early and j >= 2 else ()
            found.append(Task("S", g, j, "tensor", 1.0, (("KV", 0, j), *((before,) if j else ()), *room)))
            found.append(Task("P", g, j, "exp", softmax, (("S", g, j), *((("P", g, j - 1),) if j else ()))))
            found.append(Task("O", g, j, "tensor", 1.0, (("P", g, j), *((("O", g, j - 1),) if j else ()))))
    return found


def run(work: list[Task]) -> dict[tuple[str, int, int], tuple[float, float]]:
    """Play the work on units that do one thing at a time, whatever is ready first: start and end of every task."""
    times: dict[tuple[str, int, int], tuple[float, float]] = {}
    free: dict[str, float] = {}
    waiting = list(work)
    while waiting:
        ready = [t for t in waiting if all(key in times for key in t.after)]
        starts = [max([free.get(t.unit, 0.0), *(times[key][1] for key in t.after)]) for t in ready]
        start, task = min(zip(starts, ready, strict=True), key=lambda pair: pair[0])
        times[task.name, task.group, task.tile] = (start, start + task.time)
        free[task.unit] = start + task.time
        waiting.remove(task)
    return times


def busy(work: list[Task], unit: str = "tensor") -> float:
    """The share of the whole time in which a unit works."""
    return sum(t.time for t in work if t.unit == unit) / max(end for _, end in run(work).values())


def pipelined(q: Tensor, k: Tensor, v: Tensor, mask: TileMask, scale: float, blocks: Blocks) -> Tensor:
    """Algorithm 2: the scores of tile j + 1 are begun before the softmax of tile j, so that both can go on at once.

    q (B, K, G, T, d), k and v (B, K, 1, S, d) -> (B, K, G, T, d)
    """
    results = []
    for rows in spans(q.shape[-2], blocks.rows):
        q_i = q[..., rows, :]
        softmax = OnlineSoftmax(q_i, v.shape[-1])
        score = lambda cols, q_i=q_i, rows=rows: mask.apply(q_i @ k[..., cols, :].mT * scale, rows, cols)  # noqa: E731
        seen = [cols for cols in spans(k.shape[-2], blocks.columns) if not mask.unseen(rows, cols)]
        scores = score(seen[0]) if seen else None
        for cols, ahead in zip(seen, [*seen[1:], None], strict=True):
            upcoming = None if ahead is None else score(ahead)  # on the tensor cores ...
            softmax.add(scores, v[..., cols, :])  # type: ignore[arg-type]  # ... while this is on the exponential units
            scores = upcoming
        results.append(softmax.result()[0])
    return torch.cat(results, -2)


# -- in 8 bits ---------------------------------------------------------------------------------------------------------


def to_e4m3(x: Tensor, size: int | None) -> Tensor:
    """X (..., T, d) rounded to 8 bits: one scale for each `size` vectors of each head; one for the tensor when None.

    The numbers come back in float32, as the tensor cores would see them times their scales.
    """
    parts = [x] if size is None else [x[..., span, :] for span in spans(x.shape[-2], size)]
    return torch.cat([_rounded(part, per_head=size is not None) for part in parts], -2)


def _rounded(x: Tensor, per_head: bool) -> Tensor:
    largest = x.abs().amax((-2, -1), keepdim=True) if per_head else x.abs().max()
    scale = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def hadamard(d: int) -> Tensor:
    """The orthogonal matrix of +-1 / sqrt(d), (d, d), for d a power of two (Sylvester 1867)."""
    if d < 1 or d & (d - 1):
        raise UsageError(f"incoherent processing needs heads whose width is a power of two, not {d}")
    matrix = torch.ones(1, 1)
    while len(matrix) < d:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(d)


def incoherent(q: Tensor, k: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries and keys (..., d) times the same random orthogonal matrix: their products stay, their outliers do not."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (q.shape[-1], 1), generator=generator) * 2.0 - 1
    matrix = (signs * hadamard(q.shape[-1])).to(q)
    return q @ matrix, k @ matrix


def attention_8_bit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    scale: float,
    blocks: Blocks | None = Blocks(128, 128),  # noqa: B008
    spread: bool = True,
) -> Tensor:
    """What attention gives when q, k, v and the weights are rounded to e4m3 and sums are kept in float32. No gradients.

    q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d). `blocks` are tiles with a scale each, None for one scale a
    tensor; `spread` is incoherent processing.
    """
    tiles = TileMask(mask, q.shape[2], k.shape[2], k.shape[1], mask.bias)
    wide_q, wide_k, wide_v = by_group(q.detach().float(), k.detach().float(), v.detach().float())
    if spread:
        wide_q, wide_k = incoherent(wide_q, wide_k)
    rows, columns = (blocks.rows, blocks.columns) if blocks else (None, None)
    wide_q, wide_k, wide_v = to_e4m3(wide_q, rows), to_e4m3(wide_k, columns), to_e4m3(wide_v, columns)
    tile = blocks or Blocks(128, 128)
    results = []
    for span in spans(q.shape[2], tile.rows):
        softmax = EightBitSoftmax(wide_q[..., span, :], v.shape[-1])
        for cols in spans(k.shape[2], tile.columns):
            scores = wide_q[..., span, :] @ wide_k[..., cols, :].mT * scale
            softmax.add(tiles.apply(scores, span, cols), wide_v[..., cols, :])
        results.append(softmax.result()[0])
    return torch.cat(results, -2).flatten(1, 2).to(q.dtype)


class EightBitSoftmax(OnlineSoftmax):
    """An online softmax whose weights e^(s - m), all from 0 to 1, are rounded to e4m3 before they meet the values."""

    def add(self, scores: Tensor, values: Tensor, keep: Tensor | None = None) -> None:
        assert keep is None, "8-bit attention drops nothing"
        m = torch.maximum(self.m, scores.amax(-1, keepdim=True))
        shift = torch.where(m == -torch.inf, 0.0, m)
        p, old = torch.exp(scores - shift), torch.exp(self.m - shift)
        self.z = old * self.z + p.sum(-1, keepdim=True)
        self.o = old * self.o + (p * LARGEST).to(torch.float8_e4m3fn).float() / LARGEST @ values
        self.m = m


# -- the kernel itself -------------------------------------------------------------------------------------------------


def why_no_kernel(device: torch.device) -> str | None:
    """Why FlashAttention-3's own kernel cannot be used on a device; None where it can."""
    if device.type != "cuda":
        return f"it is for NVIDIA GPUs, and this is {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    if major != 9:
        return f"it is for Hopper GPUs (compute capability 9.0), and this one has {major}.{minor}"
    if importlib.util.find_spec("flash_attn_interface") is None:
        return "its package is not installed: build `hopper/` of github.com/Dao-AILab/flash-attention"
    return None


class Flash3Core(AttentionCore):
    """FlashAttention-3's own kernel, forward and backward; AttentionCore where it does not apply.

    It applies on a Hopper GPU with the package `flash_attn_interface`, in float16 or bfloat16, to plain rows: causal or
    everything seen, no bias, nothing dropped.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        if next(self.obstacles(q, mask), None) is not None:
            return super().forward(q, k, v, mask)
        from flash_attn_interface import flash_attn_func  # type: ignore[import-not-found]

        turned = (t.transpose(1, 2) for t in (q, k, v))  # (B, T, H, d)
        y = flash_attn_func(*turned, softmax_scale=self.scale, causal=mask.causal)
        return (y[0] if isinstance(y, tuple) else y).transpose(1, 2)  # older versions give log-sums too

    def obstacles(self, q: Tensor, mask: Mask) -> Iterator[str]:
        """Why the kernel does not apply to a call; nothing where it does."""
        if q.dtype not in (torch.float16, torch.bfloat16):
            yield f"it computes in float16 and bfloat16, not {q.dtype}"
        if mask.allowed is not None or mask.bias is not None:
            yield "it has no mask pair by pair, and no bias"
        if self.training and self.dropout:
            yield "it drops nothing"
        reason = why_no_kernel(q.device)
        if reason is not None:
            yield reason
