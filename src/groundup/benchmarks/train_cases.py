"""What `groundup bench train` trains: four models, and tokens that a model can learn something from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from groundup.benchmarks.family_shapes import Size
    from groundup.models.configs.base import ModelConfig


@dataclass(frozen=True)
class Case:
    """A model and a batch. `hidden` is the width of the gated MLP of a Llama; a GPT-2's is four times its width."""

    name: str
    family: str
    layers: int
    width: int
    heads: int
    context: int
    batch: int
    vocabulary: int
    hidden: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of one update."""
        return self.batch * self.context

    @property
    def title(self) -> str:
        """`A: gpt2 4x128, context 64, batch 12, vocabulary 65`."""
        return (
            f"{self.name}: {self.family} {self.layers}x{self.width}, context {self.context}, batch {self.batch}, "
            f"vocabulary {self.vocabulary}"
        )

    def config(self) -> "ModelConfig":
        """The model's shape, without dropout."""
        from groundup.models.configs.gpt2 import GPT2Config
        from groundup.models.configs.llama import LlamaConfig

        shape: dict[str, Any] = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.context,
        }
        if self.family == "llama":
            return LlamaConfig(**shape, intermediate_size=self.hidden)
        return GPT2Config(**shape, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)


@dataclass(frozen=True)
class FamilyCase(Case):
    """A family at the size of all (`bench families`): its name tells everything, so a worker can make it again."""

    parameters: int = 0

    @classmethod
    def make(cls, family: str, size: "Size", batch: int) -> "FamilyCase":
        """The case of one family."""
        from groundup.benchmarks.family_shapes import count, equal_size

        numbers = (size.layers, size.width, size.heads, size.context, batch, size.vocabulary)
        name = ":".join(["family", family, *map(str, numbers), str(size.parameters)])
        return cls(name, family, *numbers, parameters=count(equal_size(family, size)))

    @property
    def title(self) -> str:
        """`llama 6x256, 6,012,160 parameters, context 256, batch 8`."""
        return (
            f"{self.family} {self.layers}x{self.width}, {self.parameters:,} parameters, context {self.context}, "
            f"batch {self.batch}"
        )

    def config(self) -> "ModelConfig":
        """The model's shape, without dropout."""
        from groundup.benchmarks.family_shapes import equal_size

        return equal_size(self.family, self._size(self.name)[0])

    @classmethod
    def read(cls, name: str) -> "FamilyCase":
        """A case from its name."""
        size, batch = cls._size(name)
        return cls.make(name.split(":")[1], size, batch)

    @staticmethod
    def _size(name: str) -> "tuple[Size, int]":
        from groundup.benchmarks.family_shapes import Size

        layers, width, heads, context, batch, vocabulary, parameters = map(int, name.split(":")[2:])
        return Size(layers, width, heads, context, vocabulary, parameters), batch


def find_case(name: str) -> Case:
    """A case by its name."""
    return FamilyCase.read(name) if name.startswith("family:") else CASES[name]


CASES = {
    case.name: case
    for case in (
        Case("A", "gpt2", 4, 128, 4, context=64, batch=12, vocabulary=65),
        Case("B", "gpt2", 6, 384, 6, context=256, batch=16, vocabulary=65),
        Case("C", "gpt2", 12, 768, 12, context=256, batch=4, vocabulary=50304),
        Case("D", "llama", 6, 256, 8, context=256, batch=32, vocabulary=2048, hidden=704),
        Case("E", "llama", 12, 768, 12, context=256, batch=4, vocabulary=32000, hidden=2048),
        Case("toy", "gpt2", 1, 16, 2, context=8, batch=2, vocabulary=11),
        Case("toy-llama", "llama", 1, 16, 2, context=8, batch=2, vocabulary=11, hidden=24),
    )
}


class Tokens:
    """Batches of a seeded chain: every second token is decided by the one before it, the others fall by Zipf's law.

    A model lowers its loss by learning first how frequent tokens are and then which follows which.
    """

    def __init__(self, case: Case, seed: int):
        import torch

        self.case = case
        self.random = torch.Generator().manual_seed(seed)
        self.frequencies = 1.0 / torch.arange(1, case.vocabulary + 1)
        self.followers = torch.randperm(case.vocabulary, generator=self.random)

    def batch(self) -> "dict[str, Tensor]":
        """The next `ids` and `labels`, each (B, T) int64."""
        import torch

        rows, columns = self.case.batch, self.case.context + 1
        drawn = torch.multinomial(self.frequencies, rows * columns, replacement=True, generator=self.random)
        drawn = drawn.view(rows, columns)
        decided = torch.rand(rows, columns, generator=self.random) < 0.5
        decided[:, 0] = False
        for column in range(1, columns):
            follower = self.followers[drawn[:, column - 1]]
            drawn[:, column] = torch.where(decided[:, column], follower, drawn[:, column])
        return {"ids": drawn[:, :-1].contiguous(), "labels": drawn[:, 1:].contiguous()}
