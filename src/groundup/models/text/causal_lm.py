"""The decoder-only language model that every family specialises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers import init
from groundup.layers.block import Block
from groundup.layers.context import Context, document_positions
from groundup.layers.embedding import Embedding
from groundup.layers.masks import Causal, MaskRule
from groundup.models.configs.base import ModelConfig
from groundup.state import LayerState, Placement, RecurrentState, RollingKVCache, State, kv_cache
from groundup.weights import WeightMap

Head = Callable[[Tensor, nn.Module], Any]


class CausalLM(nn.Module):
    """embed -> blocks -> norm -> lm_head.

    A family subclasses this, overrides the factories (`make_*`) whose results differ, and declares its weight map; it
    does not override `forward`. Parts may be None and blocks live in a dict: a pipeline stage is a model with parts
    removed.

    Args:
        config: the shape.
    """

    Config: ClassVar[type[ModelConfig]]
    float32: ClassVar[tuple[str, ...]] = ()
    """Patterns of tensors that stay float32 whatever the dtype of the model."""

    embed: Embedding | None
    blocks: nn.ModuleDict
    norm: nn.Module | None
    lm_head: nn.Module | None

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.embed = self.make_embed()
        self.blocks = nn.ModuleDict({str(i): self.make_block(i) for i in range(config.num_hidden_layers)})
        self.norm = self.make_final_norm()
        self.lm_head = self.make_head()
        self.tie_weights()
        for name, module in self.named_modules():
            if hasattr(module, "path"):
                module.path = name  # type: ignore[assignment]

    # -- what a family may change -------------------------------------------------------------------------------------

    def make_embed(self) -> Embedding:
        """From ids to vectors."""
        return Embedding(self.config.vocab_size, self.config.hidden_size)

    def make_norm(self) -> nn.Module:
        """A norm over the residual stream."""
        raise NotImplementedError

    def make_final_norm(self) -> nn.Module | None:
        """What stands between the last block and the head; None for nothing."""
        return self.make_norm()

    def make_attention(self, i: int) -> nn.Module:
        """Layer i's way of looking at other tokens."""
        raise NotImplementedError

    def make_mlp(self, i: int) -> nn.Module:
        """Layer i's feed-forward network."""
        raise NotImplementedError

    def make_block(self, i: int) -> nn.Module:
        """Layer i: how the parts are joined."""
        return Block(self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))

    def make_head(self) -> nn.Module:
        """From hidden vectors to logits."""
        return nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        """What layer i remembers: the name of a module within the block -> its state."""
        attn = getattr(self.blocks[str(i)], "attn", None)
        memory = getattr(attn, "memory", "keys")
        if memory == "none":
            raise UsageError(f"layer {i}: {type(attn).__name__} has no state: give whole rows without one")
        if memory == "borrowed":
            return {}
        if memory == "sums":
            return {"attn": RecurrentState()}  # type: ignore[dict-item]
        return {"attn": kv_cache(max_len, getattr(getattr(attn, "mask", None) or self.make_mask(i), "window", None))}

    def make_mask(self, i: int) -> MaskRule:
        """Who sees whom in layer i."""
        return Causal()

    def positions(self, num_tokens: int, documents: Tensor | None, placement: Placement | None, device: Any) -> Tensor:
        """The positions of this call's tokens when the caller gives none, (B or 1, T) int64."""
        if placement is not None:
            return placement.slots
        if documents is not None:
            return document_positions(documents)
        return torch.arange(num_tokens, device=device)[None]

    def arrange(self, x: Tensor, context: Context, given: bool) -> Context:
        """The call with what follows from the tokens themselves (GLM: positions and segments, from a prompt's marks).

        Args:
            x: ids or vectors.
            context: the call; its positions are those that the caller gave, or those that count.
            given: whether the positions are the caller's.
        """
        return context

    def init_weights(self) -> None:
        """Fill the weights with their initial values."""
        init.normal(self, self.config.initializer_range)

    def learn_vocabulary(self, tokenizer: Any) -> None:
        """Take from a new model's tokenizer what the family needs of it: how tokens are spelt, in ELMo."""

    @classmethod
    def weight_map(cls, config: Any) -> WeightMap:
        """How the family's tensors are called in a Hugging Face checkpoint."""
        raise NotImplementedError

    # -- what they share ----------------------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        segments: Tensor | None = None,
        state: State | None = None,
        head: Head | None = None,
    ) -> Any:
        """Run the model.

        Args:
            x: ids (B, T) int64, or vectors (B, T, D).
            positions: (B, T) int64; by default they count within each document, on from what the state has seen. GLM
                has pairs of them, (B, T, 2).
            documents: (B, T) int64, 0 for padding, equal numbers attend to each other; None for one document per row.
            segments: (B, T) int64, parts of a row (sentence A or B, source or target) for segment embeddings and the
                masks that tell prefixes from what follows; most families make no use of it.
            state: what earlier calls left; updated in place. With one, every row is one document: 0 or 1.
            head: called as head(hidden (B, T, D), lm_head) instead of computing all logits; its result is returned.

        Returns:
            logits (B, T, V), or what `head` returns, or hidden vectors (B, T, D) where the model has no head.

        Raises:
            UsageError: more tokens than the state was made for, or other rows than it has.
        """
        num_tokens = x.shape[1]
        if state is not None and len(state.lengths) != len(x):
            raise UsageError(f"{len(x)} rows arrive, but the state remembers {len(state.lengths)}: see State.select")
        placement = None if state is None else state.place(num_tokens, documents)
        given = positions is not None
        if positions is None:
            positions = self.positions(num_tokens, documents, placement, x.device)
        context = self.arrange(x, Context(positions, documents, state, placement, segments), given)

        if self.embed is not None:
            x = self.embed(x, context)  # (B, T, D)
        for block in self.blocks.values():
            x = block(x, context)
        if state is not None and placement is not None:
            state.advance(placement, num_tokens)
        if self.norm is not None:
            x = self.norm(x)
        if head is not None:
            return head(x, self.lm_head)  # type: ignore[arg-type]
        return x if self.lm_head is None else self.lm_head(x)

    def make_state(self, batch: int, max_len: int, spare: int = 0) -> State:
        """An empty memory for `batch` rows of up to `max_len` tokens.

        Where layers see a window, only its tokens are kept, and `spare` more: `State.trim` can forget as many.
        """
        layers = {
            f"blocks.{i}.{name}": layer
            for i in self.blocks
            for name, layer in self.make_layer_state(int(i), max_len).items()
        }
        for layer in layers.values():
            if isinstance(layer, RollingKVCache):
                layer.reserve(spare)
        return State(layers, batch, max_len, self.device)

    def tie_weights(self) -> None:
        """Make the head and the embedding one matrix where the config says so (Press & Wolf 2017)."""
        if self.config.tie_word_embeddings and self.embed is not None and self.lm_head is not None:
            self.lm_head.weight = self.embed.tokens.weight

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, trainable: bool = False) -> int:
        """Parameters, tied ones counted once, and the numbers of matrices that are stored in fewer bits; adapters
        count too.

        Args:
            trainable: only those that learn, which numbers in fewer bits never do.
        """
        packed = 0 if trainable else sum(getattr(module, "packed_numbers", 0) for module in self.modules())
        return packed + sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a complete Hugging Face folder: config.json, generation_config.json, model.safetensors."""
        from groundup.models.hub import save_model

        save_model(self, folder)

    @classmethod
    def build(cls, config: ModelConfig) -> Self:
        """A new model with initial weights."""
        if not isinstance(config, cls.Config):
            raise UsageError(f"{cls.__name__} is built from a {cls.Config.__name__}, not a {type(config).__name__}")
        model = cls(config)
        model.init_weights()
        return model
