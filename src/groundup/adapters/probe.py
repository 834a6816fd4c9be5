"""Probing: what the frozen vectors inside a model know, read off by a small classifier (Alain & Bengio 2016).

    linear    softmax(W h + b)                      h: one layer's vector of a token, or pooled over a text
    mlp       softmax(W_2 relu(W_1 h + b_1) + b_2)

A probe can learn a task that the vectors say nothing about. The control task (Hewitt & Liang 2019) tells: every kind of
token gets a random label of its own, always the same. Selectivity is the accuracy on the task minus that on the control
task; a probe of high accuracy and low selectivity has learned by heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.base.console import progress
from groundup.base.errors import UsageError
from groundup.observe import observe

Pooling = Literal["first", "last", "mean", "tokens"]


@dataclass(frozen=True)
class Settings:
    """How a probe is trained.

    Attributes:
        hidden: width of the layer between; None for a linear probe.
        steps: of Adam on the whole training set.
        lr: its learning rate.
        weight_decay: pulls the weights towards 0.
        seed: of the first weights.
    """

    hidden: int | None = None
    steps: int = 200
    lr: float = 0.01
    weight_decay: float = 1e-3
    seed: int = 0


@torch.no_grad()
def features(
    model: Any,
    rows: Sequence[Sequence[int]],
    layers: Sequence[str],
    pooling: Pooling = "mean",
    batch_size: int = 16,
) -> dict[str, Tensor]:
    """The frozen vectors of some texts.

    Args:
        model: any model whose modules give (B, T, D); it is run in evaluation mode, without gradient.
        rows: ids of each text, none empty.
        layers: dotted names of modules: `embed`, `blocks.3`, `norm`.
        pooling: `first` token's vector (a classification token), `last`, `mean` over the text, or all `tokens`, text
            after text.
        batch_size: texts at once.

    Returns:
        Layer -> (texts or tokens, D) float32.

    Raises:
        UsageError: no such layer, an empty text.
    """
    if not rows or not all(rows):
        raise UsageError("a probe needs texts, and no empty ones")
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for start in progress(range(0, len(rows), batch_size), label="vectors"):
            batch = rows[start : start + batch_size]
            width = max(map(len, batch))
            ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch], device=device)
            lengths = torch.tensor([len(row) for row in batch], device=device)
            documents = (torch.arange(width, device=device) < lengths[:, None]).long()
            with observe(model, list(layers)) as seen:
                model(ids, documents=documents)
            for layer in layers:
                found[layer].append(_pooled(seen[layer].float(), documents, pooling).cpu())
    finally:
        for module in training:
            module.training = True
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _pooled(x: Tensor, documents: Tensor, pooling: Pooling) -> Tensor:
    """(B, T, D), padded on the right -> (B, D), or (tokens, D)"""
    real = documents != 0
    if pooling == "tokens":
        return x[real]
    if pooling == "first":
        return x[:, 0]
    if pooling == "last":
        return x[torch.arange(len(x), device=x.device), real.sum(1) - 1]
    return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)


class Probe(nn.Module):
    """A classifier over vectors that are first brought to mean 0 and variance 1. (N, D) -> (N, C)

    Args:
        x: (N, D), the vectors it will be trained on.
        classes: C.
        hidden: width of the layer between; None for a linear probe.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, x: Tensor, classes: int, hidden: int | None = None):
        super().__init__()
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("std", x.std(0, correction=0).clamp(min=1e-6))
        dim = x.shape[1]
        if hidden is None:
            self.classify: nn.Module = nn.Linear(dim, classes)
        else:
            self.classify = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify((x - self.mean) / self.std)


def train_probe(x: Tensor, labels: Tensor, settings: Settings = Settings()) -> Probe:
    """Train a probe. x (N, D), labels (N,) int64, from 0."""
    if len(x) != len(labels):
        raise UsageError(f"{len(x)} vectors have {len(labels)} labels: one each")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        probe = Probe(x, int(labels.max()) + 1, settings.hidden)
    optimizer = torch.optim.AdamW(probe.parameters(), settings.lr, weight_decay=settings.weight_decay)
    with torch.enable_grad():
        for _ in range(settings.steps):
            optimizer.zero_grad()
            F.cross_entropy(probe(x), labels).backward()
            optimizer.step()
    return probe


@torch.no_grad()
def accuracy(probe: Probe, x: Tensor, labels: Tensor) -> float:
    """The share of vectors that a probe labels rightly."""
    return (probe(x).argmax(-1) == labels).float().mean().item()


def control_labels(kinds: Tensor, classes: int, seed: int = 0) -> Tensor:
    """A random label for every kind of token, always the same for one kind. kinds (N,) int64 -> (N,)"""
    table = torch.randint(classes, (int(kinds.max()) + 1,), generator=torch.Generator().manual_seed(seed))
    return table[kinds]


def token_labels(
    spans: Sequence[tuple[int, int, int]], offsets: Sequence[tuple[int, int]], none: int = -100
) -> list[int]:
    """The tags of words as tags of tokens: each token has that of the first word it holds a part of.

    Args:
        spans: (start, end, tag) of each word, in characters, in order.
        offsets: (start, end) of each token.
        none: for tokens outside words.
    """
    tags = {place: tag for start, end, tag in spans for place in range(start, end)}
    return [next((tags[place] for place in range(*pair) if place in tags), none) for pair in offsets]


@dataclass(frozen=True)
class Finding:
    """What a probe found in one layer: its accuracy on unseen texts, and on the control task, if there was one."""

    layer: str
    accuracy: float
    control: float | None = None

    @property
    def selectivity(self) -> float | None:
        """Accuracy minus that on the control task."""
        return None if self.control is None else self.accuracy - self.control


def probe_layers(
    train: dict[str, Tensor],
    train_labels: Tensor,
    test: dict[str, Tensor],
    test_labels: Tensor,
    settings: Settings = Settings(),
    kinds: tuple[Tensor, Tensor] | None = None,
) -> list[Finding]:
    """Probe layer by layer.

    Args:
        train: layer -> vectors, as of `features`.
        train_labels: (N,) int64; vectors with a label below 0 are left out.
        test: as `train`, of texts that are judged.
        test_labels: as `train_labels`.
        settings: of each probe.
        kinds: of the tokens of both sets (their ids), for the control task; None for none.

    Returns:
        A finding for each layer.
    """
    used, judged = train_labels >= 0, test_labels >= 0
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    found = []
    for layer, x in train.items():
        x, y = x[used], test[layer][judged]
        score = accuracy(train_probe(x, train_labels[used], settings), y, test_labels[judged])
        control = None
        if kinds is not None:
            ids = torch.cat((kinds[0][used], kinds[1][judged]))
            labels = control_labels(ids, classes)
            control = accuracy(train_probe(x, labels[: len(x)], settings), y, labels[len(x) :])
        found.append(Finding(layer, score, control))
    return found
