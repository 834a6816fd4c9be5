"""Recurrent layers: a cell that turns its state and the next vector into its next state, run over time.

    h_t = cell(x_t, h_{t-1})          a state of fixed size, however long the text

The cells here have the gates, their order and the two biases of torch's `nn.RNN`, `nn.LSTM` and `nn.GRU`, so weights
can be exchanged. What depends on x alone (the larger half of the work) is one product over all time steps; only the
product with h waits for the step before.
"""

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.activations import Activation, activation
from groundup.layers.context import Context
from groundup.layers.sequences import Sequences

if TYPE_CHECKING:
    from groundup.state import RecurrentState

Memory = tuple[Tensor, ...]
"""A cell's state, (S, H) each: the output h first."""


class Cell(nn.Module):
    """What the cells share: a projection of x and one of h, each to `gates` vectors of width H.

    Args:
        dim: D, width of x.
        hidden: H, width of the state.
        bias: a bias in both projections. Their sum is all that counts, except in a GRU.
    """

    gates: ClassVar[int]
    memory: ClassVar[tuple[str, ...]] = ("h",)
    """Names of the tensors of the state."""

    def __init__(self, dim: int, hidden: int, bias: bool = True):
        super().__init__()
        self.widths: tuple[int, ...] = (hidden,) * len(self.memory)  # of the tensors of the state; the output's first
        self.input_proj = nn.Linear(dim, self.gates * hidden, bias)
        self.state_proj = nn.Linear(hidden, self.gates * hidden, bias)

    def step(self, x: Tensor, memory: Memory, project: Activation) -> Memory:
        """One time step.

        Args:
            x: (S, gates H), the projected input.
            memory: the state before, (S, H) each.
            project: the projection of h, (S, H) -> (S, gates H).
        """
        raise NotImplementedError

    def forward(self, x: Tensor, memory: Memory) -> Memory:
        """One time step from x (S, D) itself."""
        return self.step(self.input_proj(x), memory, self.state_proj)

    def start(self, count: int) -> Memory:
        """The state before the first token, (S, H) zeros each."""
        weight = self.state_proj.weight
        return tuple(torch.zeros(count, width, dtype=weight.dtype, device=weight.device) for width in self.widths)

    def matrices_read(self) -> list[Tensor]:
        """Matrices that are read as tensors, so that nothing else may stand in their layers' place."""
        return [self.state_proj.weight]

    def kernel(self) -> Any:
        """The fused kernel that torch has for this cell; None where there is none."""
        return None

    def more_weights(self) -> list[Tensor]:
        """What the kernel takes beside both projections and their biases."""
        return []


class SimpleRNN(Cell):
    """h' = act(V x + U h + b) (Elman 1990). `act`: a name of `layers.activations`."""

    gates = 1

    def __init__(self, dim: int, hidden: int, bias: bool = True, act: str = "tanh"):
        super().__init__(dim, hidden, bias)
        self.act_name, self.act = act, activation(act)

    def step(self, x: Tensor, memory: Memory, project: Activation) -> Memory:
        return (self.act(x + project(memory[0])),)

    def kernel(self) -> Any:
        kernels = torch._VF  # type: ignore[attr-defined]
        return {"tanh": kernels.rnn_tanh, "relu": kernels.rnn_relu}.get(self.act_name)


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    The cell c is changed by multiplication with f and addition alone, so gradients can flow far through it.
    """

    gates = 4
    memory = ("h", "c")

    def step(self, x: Tensor, memory: Memory, project: Activation) -> Memory:
        h, c = memory
        i, f, g, o = (x + project(h)).chunk(4, dim=-1)  # V x + U h + b, four parts
        # c' = σ(f) c + σ(i) tanh(g)
        c = self.bounded(torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh()))
        # h' = σ(o) tanh(c')
        return o.sigmoid() * c.tanh(), c

    def bounded(self, x: Tensor) -> Tensor:
        """Hook of cells that clip."""
        return x

    def kernel(self) -> Any:
        return torch._VF.lstm  # type: ignore[attr-defined]


class ProjectedLSTM(LSTM):
    """An LSTM whose output is projected to a smaller width before it goes on and up (Sak et al. 2014): h' = P σ(o)
    tanh(c'). The cell may be wide, and the products with h stay small.

    Args:
        dim: D, width of x.
        hidden: width of the cell c.
        out: width of h.
        clip: largest size of the entries of c and h; None does not clip (3 in ELMo).
        input_bias: the projection of x has a bias too, as in torch.
    """

    def __init__(self, dim: int, hidden: int, out: int, clip: float | None = None, input_bias: bool = True):
        super().__init__(dim, hidden)
        self.widths, self.clip = (out, hidden), clip
        if not input_bias:
            self.input_proj = nn.Linear(dim, 4 * hidden, bias=False)
        self.state_proj = nn.Linear(out, 4 * hidden)
        self.out_proj = nn.Linear(hidden, out, bias=False)

    def step(self, x: Tensor, memory: Memory, project: Activation) -> Memory:
        h, c = super().step(x, memory, project)
        return self.bounded(self.out_proj(h)), c

    def bounded(self, x: Tensor) -> Tensor:
        """Clipped to ± clip."""
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def kernel(self) -> Any:
        return super().kernel() if self.clip is None and type(self.out_proj) is nn.Linear else None

    def more_weights(self) -> list[Tensor]:
        return [self.out_proj.weight]


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014) in the form of cuDNN and torch: r is applied after the product with h."""

    gates = 3

    def step(self, x: Tensor, memory: Memory, project: Activation) -> Memory:
        (h,) = memory
        xr, xz, xn = x.chunk(3, dim=-1)
        hr, hz, hn = project(h).chunk(3, dim=-1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        # n = tanh(W x + r (U h + b))
        n = torch.addcmul(xn, r, hn).tanh()
        # h' = (1 - z) n + z h
        return (torch.lerp(n, h, z),)

    def kernel(self) -> Any:
        return torch._VF.gru  # type: ignore[attr-defined]


class ResetFirstGRU(GRU):
    """The GRU as published (Cho et al. 2014): n = tanh(W x + U (r h)), r before the product, which then waits for r."""

    def __init__(self, dim: int, hidden: int, bias: bool = True):
        super().__init__(dim, hidden, bias)
        self.state_proj = nn.Linear(hidden, 2 * hidden, bias)
        self.candidate_proj = nn.Linear(hidden, hidden, bias)

    def step(self, x: Tensor, memory: Memory, project: Activation) -> Memory:
        (h,) = memory
        xr, xz, xn = x.chunk(3, dim=-1)
        hr, hz = project(h).chunk(2, dim=-1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        n = (xn + self.candidate_proj(r * h)).tanh()
        return (torch.lerp(n, h, z),)

    def kernel(self) -> Any:
        return None


CELLS: dict[str, type[Cell]] = {"simple": SimpleRNN, "lstm": LSTM, "gru": GRU, "gru_reset_first": ResetFirstGRU}


class Recurrent(nn.Module):
    """A cell run over every document of a batch. (B, T, D) -> (B, T, H)

    Padding is stepped over, and each document begins from zeros (or, with a state, where its row ended). Outputs at
    padding are zeros.

    Args:
        cell: one of the cells above.
        weight_dropout: in training, entries of the state's matrix that are zero for a whole call (Wan et al. 2013,
            DropConnect; Merity et al. 2017).
        fused: let torch's own kernel run the loop where it computes the same; `scan` is what it computes.
        backwards: read each document from its end.
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""

    def __init__(self, cell: Cell, *, weight_dropout: float = 0.0, fused: bool = True, backwards: bool = False):
        super().__init__()
        self.cell, self.weight_dropout, self.fused, self.backwards = cell, weight_dropout, fused, backwards

    @torch.compiler.disable  # a loop over time would be unrolled into a program of a thousand steps
    def forward(self, x: Tensor, context: Context) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.backwards and context.state is not None:
            raise UsageError("a layer that reads from the end has no state: the end of the text must be known")
        sequences = context.sequences((x.shape[0], x.shape[1]), self.backwards)
        if not sequences.sizes:  # padding alone
            return x.new_zeros(*x.shape[:2], self.cell.widths[0])
        kept = None if context.state is None else context.state.layers[self.path]
        # The state is kept in the weights' own type: 16 bits are too few for a sum over a whole text.
        with contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            inputs = sequences.take(x).to(self.cell.state_proj.weight.dtype)
            before = self._recall(kept, sequences)
            y, after = self.run(inputs, sequences.sizes, before)
        if kept is not None:
            self._remember(kept, sequences, after)
        return sequences.put_back(y)

    def run(self, x: Tensor, sizes: list[int], memory: Memory) -> tuple[Tensor, Memory]:
        """Outputs (N, H) of the tokens x (N, D), laid out step by step, and the state (S, H) after each document."""
        weight = F.dropout(self.cell.state_proj.weight, self.weight_dropout, self.training)
        if self.fused and self._plain() and self.cell.kernel() is not None and not x.is_meta:
            return self._kernel(x, sizes, memory, weight)
        project: Activation = self.cell.state_proj
        if self.training and self.weight_dropout:
            project = partial(F.linear, weight=weight, bias=self.cell.state_proj.bias)
        return scan(self.cell, self.cell.input_proj(x), sizes, memory, project)

    def _plain(self) -> bool:
        """Whether both projections are what they were built as: an adapter or a quantized matrix may stand there."""
        parts = (self.cell.input_proj, self.cell.state_proj)
        return all(type(part) is nn.Linear for part in parts) and len({part.bias is None for part in parts}) == 1

    def _kernel(self, x: Tensor, sizes: list[int], memory: Memory, weight: Tensor) -> tuple[Tensor, Memory]:
        cell = self.cell
        weights = [cell.input_proj.weight, weight]
        biased = cell.input_proj.bias is not None
        if biased:
            weights += [cell.input_proj.bias, cell.state_proj.bias]
        weights += cell.more_weights()
        layers = [part[None] for part in memory]  # (1, S, H): one layer, one direction
        start = layers if len(layers) > 1 else layers[0]
        steps = torch.tensor(sizes, dtype=torch.int64)
        # layers 1, dropout 0, training as it is, one direction
        y, *after = cell.kernel()(x, steps, start, weights, biased, 1, 0.0, self.training, False)
        return y, tuple(part[0] for part in after)

    def _recall(self, kept: "RecurrentState | None", sequences: Sequences) -> Memory:
        start = self.cell.start(len(sequences.rows))
        if kept is None or not kept.tensors:
            return start
        return tuple(kept.tensors[name][sequences.rows] for name in self.cell.memory)

    def _remember(self, kept: "RecurrentState", sequences: Sequences, after: Memory) -> None:
        for name, value in zip(self.cell.memory, after, strict=True):
            old = kept.tensors.get(name)
            if old is None:
                old = value.new_zeros(sequences.shape[0], value.shape[-1])
            kept.tensors[name] = old.index_copy(0, sequences.rows, value)  # rows of padding alone stay as they were


def scan(cell: Cell, x: Tensor, sizes: list[int], memory: Memory, project: Activation) -> tuple[Tensor, Memory]:
    """A cell over time, a step at a time: what the fused kernels compute.

    Args:
        cell: the cell.
        x: (N, gates H), projected inputs laid out step by step.
        sizes: how many documents still run at each step.
        memory: (S, H) each, the state before.
        project: the projection of h.

    Returns:
        outputs (N, H), and the state (S, H) after each document's last token.
    """
    outputs, ended = [], []
    for part in x.split(sizes):
        count = len(part)
        if count < len(memory[0]):  # the shortest documents have ended
            ended.append(tuple(value[count:] for value in memory))
            memory = tuple(value[:count] for value in memory)
        memory = cell.step(part, memory, project)
        outputs.append(memory[0])
    after = zip(memory, *reversed(ended), strict=True)
    return torch.cat(outputs), tuple(torch.cat(values) for values in after)


class Bidirectional(nn.Module):
    """Two layers over the same text, one from each end, side by side (Schuster & Paliwal 1997). -> (B, T, 2 H)

    At every token the output knows what came before and what comes after it.
    """

    def __init__(self, forwards: Recurrent, backwards: Recurrent):
        super().__init__()
        if forwards.backwards or not backwards.backwards:
            raise UsageError("Bidirectional takes a layer that reads forwards, then one with backwards=True")
        self.forwards, self.backwards = forwards, backwards

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return torch.cat((self.forwards(x, context), self.backwards(x, context)), dim=-1)


class Stack(nn.Module):
    """Layers over layers, with dropout between them (not after the last). (B, T, D) -> (B, T, H of the last)"""

    def __init__(self, *layers: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.layers, self.dropout = nn.ModuleList(layers), nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(self.dropout(x) if number else x, context)
        return x
