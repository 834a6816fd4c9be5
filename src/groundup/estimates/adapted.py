"""Models with adapters, and with weights in fewer bits: built without memory, put together as in earnest, and counted.

No formula is needed for a kind of adapter or a form of weights: on the meta device tensors have shapes and no numbers.
"""

from dataclasses import dataclass
from typing import Any

from groundup.base.errors import UsageError

PROBE_TOKENS = 16


@dataclass(frozen=True)
class Adapted:
    """What was counted.

    Attributes:
        weights: bytes of the base as it is stored.
        base: numbers of the base; added: of the adapter; learning: those that learn, of both.
        saved: bytes a token that the backward pass needs in place of those of full fine-tuning: below 0 where
            frozen layers need not keep their inputs.
    """

    weights: int
    base: int
    added: int
    learning: int
    saved: float


def count_adapted(config: Any, adapter: Any, quantization: Any, dtype: str) -> Adapted:
    """Count a model config with an adapter's and a quantization's settings, either of them None.

    Raises:
        UsageError: they do not fit the model, or nothing would learn.
    """
    import torch

    from groundup.adapters.attach import adapters_of
    from groundup.models.catalogue import FAMILIES, config_from_hf, model_class
    from groundup.quantization.exchange import exchange_empty

    config = config_from_hf(config) if isinstance(config, dict) else config
    if getattr(config, "model_type", None) not in FAMILIES:
        raise UsageError(f"no adapters are estimated for `{getattr(config, 'model_type', '?')}`: it is no family here")
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    with torch.device("meta"):
        model: Any = model_class(config)(config).to(torch_dtype)
        full = saved_a_token(model)
        base = model.num_parameters()
        if quantization is not None:
            exchange_empty(model, quantization)
        weights = tensor_bytes(model)
        if adapter is None:
            return Adapted(weights, base, 0, base, 0.0)
        adapters = adapters_of(model)
        adapters.add("default", adapter)
        model.to(torch_dtype)  # as training does; what is quantized stays as it is
        own = adapters.parameters("default")
        learning = sum(p.numel() for p in own.values())
        inside = sum(own[name].numel() for name in adapters.plans["default"].tensors)
        return Adapted(weights, base, learning - inside, learning, saved_a_token(model) - full)


def tensor_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers, those with two names once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.nbytes for t in tensors.values())


def saved_a_token(model: Any) -> float:
    """Bytes that a forward pass keeps for the backward pass, a token, weights left out."""
    import torch

    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other tensor takes its place
        return tensor

    ids = torch.zeros(1, PROBE_TOKENS, dtype=torch.int64, device=next(model.parameters()).device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = model(ids, head=lambda hidden, head: hidden)
    del result
    return sum(storage.nbytes() for storage in kept.values()) / PROBE_TOKENS
