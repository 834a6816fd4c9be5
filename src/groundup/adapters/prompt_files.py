"""Prompts and prefixes in peft's files: one tensor, `prompt_embeddings`, what the network made rather than the network.

prompts    (n, D)
prefixes   (n, layers 2 K d): layer by layer the keys and the values of all heads
"""

from typing import Any

import torch
from torch import Tensor

from groundup.adapters.ahead import embedding_of
from groundup.adapters.attach import adapters_of
from groundup.adapters.config import FromPeft, InPeft, Loaded
from groundup.adapters.configs.prefix import PrefixConfig
from groundup.adapters.configs.prompt import PromptConfig
from groundup.adapters.files import Given, compare
from groundup.adapters.names import NoPeftForm
from groundup.adapters.plan import Plan
from groundup.adapters.prefix import Prefix
from groundup.adapters.prefix import plan as prefix_plan
from groundup.adapters.prompt import SoftPrompt
from groundup.layers.position_bias import PositionBias

KEY = "prompt_embeddings"
FOR_TRAINING = (
    "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs", "encoder_dropout",
    "encoder_hidden_size", "encoder_num_layers", "encoder_reparameterization_type", "init_weights", "prefix_projection",
)  # fmt: skip
SHAPE = ("num_attention_heads", "num_layers", "token_dim", "num_virtual_tokens")


@torch.no_grad()
def prompt_to_peft(model: Any, name: str) -> InPeft:
    """The vectors of a soft prompt; see `AdapterConfig.to_peft`."""
    prompt = adapters_of(model).plans[name].prompt
    training = prompt.training  # type: ignore[union-attr]
    vectors = prompt.eval().vectors()  # type: ignore[union-attr]
    prompt.train(training)  # type: ignore[union-attr]
    if vectors.shape[1] != model.embed.tokens.embedding_dim:
        raise NoPeftForm("its vectors are wider than those of the vocabulary")
    c = model.config
    return InPeft(
        _values(len(vectors), vectors.shape[1], getattr(c, "num_attention_heads", 1), c.num_hidden_layers),
        {KEY: vectors},
    )


def prompt_from_peft(model: Any, given: FromPeft) -> Loaded:
    """A soft prompt; see `AdapterConfig.from_peft`."""
    embed, n = embedding_of(model, "a soft prompt"), _length(given)
    compare({KEY: (n, embed.tokens.embedding_dim)}, given.tensors, given.folder)
    prompt = SoftPrompt(given.tensors[KEY].to(embed.weight.device))
    return Loaded(PromptConfig(length=n, init="random"), Plan(prompt=prompt))


@torch.no_grad()
def prefix_to_peft(model: Any, name: str) -> InPeft:
    """Keys and values of all layers; see `AdapterConfig.to_peft`."""
    plan = adapters_of(model).plans[name]
    parts: list[Any] = list(plan.parts.values())
    shapes = {shape for part in parts for shape in part.shapes}
    if len(shapes) != 1 or len(parts) != model.config.num_hidden_layers or plan.tensors:
        raise NoPeftForm("peft's prefixes have one shape in all layers, and nothing beside them")
    if any(isinstance(m, PositionBias) for m in model.modules()):
        raise NoPeftForm("peft's prefixes take part in the biases of distance, ours have none")
    ((heads, d),) = shapes
    flat = torch.cat([part.baked().key_values for part in parts], dim=1)
    return InPeft(_values(len(flat), heads * d, heads, len(parts)) | {"prefix_projection": False}, {KEY: flat})


@torch.no_grad()
def prefix_from_peft(model: Any, given: FromPeft) -> Loaded:
    """Prefixes for all layers; see `AdapterConfig.from_peft`."""
    config = PrefixConfig(length=_length(given), projection=False)
    if any(isinstance(m, PositionBias) for m in model.modules()):
        raise NoPeftForm("peft's prefixes take part in the biases of distance, ours have none")
    with torch.random.fork_rng(devices=[]):
        plan = prefix_plan(model, config)
    parts: list[Prefix] = list(plan.parts.values())  # type: ignore[arg-type]
    widths = [part.key_values.shape[1] for part in parts]
    compare({KEY: (config.length, sum(widths))}, given.tensors, given.folder)
    pieces: tuple[Tensor, ...] = given.tensors[KEY].split(widths, dim=1)
    for part, piece in zip(parts, pieces, strict=True):
        part.key_values.copy_(piece)
    return Loaded(config, plan)


def _values(n: int, dim: int, heads: int, layers: int) -> dict[str, Any]:
    shape = dict(zip(SHAPE, (heads, layers, dim, n), strict=True))
    return shape | {"num_transformer_submodules": 1, "task_type": "CAUSAL_LM", "inference_mode": True}


def _length(given: FromPeft) -> int:
    values = Given(given)
    n = values.take("num_virtual_tokens", 0)
    values.ignore((*SHAPE, *FOR_TRAINING))
    if values.take("num_transformer_submodules", 1) != 1:
        raise NoPeftForm("it has a second prompt, for a decoder")
    values.done()
    return n
