"""Finds the outline of a model by running it once without data.

Nothing is declared by families: the model is built on the `meta` device, where tensors have shapes and no values, and
what ran is written down. So every family has an outline, and it cannot disagree with the code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from groundup.layers.attentions.gated_delta import GatedDeltaNet
from groundup.layers.attentions.shared_keys import BorrowingAttention
from groundup.layers.latent_attention import LatentAttention
from groundup.layers.moe.experts import Experts, GroupedLinear
from groundup.layers.moe.gates.gate import Gate
from groundup.models.architecture.outline import PROBE, Group, Outline, Part
from groundup.models.catalogue import model_class


def outline(config: Any, title: str | None = None) -> Outline:
    """The outline of the model that a config describes; nothing large is allocated."""
    with torch.device("meta"):
        model = model_class(config)(config).eval()
    calls, flops = _run(model)
    around = [name for name in ("embed", "norm", "lm_head") if getattr(model, name, None) is not None]
    before = tuple(_part(model, name, calls, flops) for name in around if name == "embed")
    after = tuple(_part(model, name, calls, flops) for name in around if name != "embed")
    per_token, constant = _state_bytes(model)
    total = None if flops is None else flops.get("", 0) // PROBE
    groups = tuple(_groups(model, calls, flops))
    counted = model.num_parameters()
    return Outline(title or config.model_type, before, groups, after, counted, total, per_token, constant)


def _run(model: Any) -> tuple[dict[str, str], dict[str, int] | None]:
    """Names of the modules that ran, in order, with their output's shape; and operations by module name."""
    calls: dict[str, str] = {}
    counter = FlopCounterMode(display=False)
    try:
        with _recording(model, calls), counter, torch.no_grad():
            model(torch.zeros(1, PROBE, dtype=torch.int64, device="meta"))
    except (NotImplementedError, RuntimeError):  # a part that must see its data: experts chosen by a router
        return calls, None
    kind = type(model).__name__
    counts = {}
    for name, operations in counter.get_flop_counts().items():
        inside = "" if name in ("Global", kind) else name.removeprefix(kind + ".")
        counts[inside] = sum(operations.values())
    return calls, counts


@contextmanager
def _recording(model: nn.Module, calls: dict[str, str]) -> Iterator[None]:
    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls.setdefault(name, _shape(output))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shape(output: Any) -> str:
    if isinstance(output, tuple | list):
        output = next((each for each in output if isinstance(each, Tensor)), None)
    if not isinstance(output, Tensor):
        return ""
    named = {1: "B", PROBE: "T"}
    leading = [named.get(size, str(size)) for size in output.shape[:2]]
    return "(" + ", ".join([*leading, *map(str, output.shape[2:])]) + ")"


def _groups(model: Any, calls: dict[str, str], flops: dict[str, int] | None) -> Iterator[Group]:
    """Runs of like blocks: equal classes, parts and details."""
    start, last = 0, None
    for i, block in model.blocks.items():
        names = [name for name, _ in block.named_children() if _counts(block, name)]
        order = {name: place for place, name in enumerate(calls)}
        names.sort(key=lambda name, i=i: order.get(f"blocks.{i}.{name}", len(order)))
        parts = tuple(_part(model, f"blocks.{i}.{name}", calls, flops) for name in names)
        now = (type(block).__name__, parts, str(getattr(block, "layout", "")))
        if last is not None and now != last:
            yield Group(range(start, int(i)), *last)
            start = int(i)
        last = now
    if last is not None:
        yield Group(range(start, len(model.blocks)), *last)


def _counts(block: nn.Module, name: str) -> bool:
    """Whether a part is worth a line: it has weights, or is more than a dropout that does nothing."""
    child = getattr(block, name)
    return any(True for _ in child.parameters()) or not isinstance(child, nn.Dropout | nn.Identity)


def _part(model: nn.Module, name: str, calls: dict[str, str], flops: dict[str, int] | None) -> Part:
    module = model.get_submodule(name)
    inner = tuple(
        _part(model, f"{name}.{child}", calls, flops)
        for child, sub in module.named_children()
        if sum(p.numel() for p in sub.parameters()) and len(inner_names(module)) <= 8
    )
    return Part(
        name=name.split(".", 2)[2] if name.startswith("blocks.") else name,
        kind=type(module).__name__,
        detail=describe(module),
        shape=calls.get(name, ""),
        parameters=sum(p.numel() for p in module.parameters()),
        flops=0 if flops is None else flops.get(name, 0) // PROBE,
        inner=inner,
    )


def inner_names(module: nn.Module) -> list[str]:
    """Children with weights of their own."""
    return [name for name, sub in module.named_children() if any(True for _ in sub.parameters())]


def describe(module: nn.Module) -> str:
    """What a part is, in a few words: its sizes and settings."""
    words = []
    if isinstance(module, nn.Linear):
        words.append(f"{module.in_features} → {module.out_features}" + (", bias" if module.bias is not None else ""))
    if isinstance(module, nn.Embedding):
        words.append(f"{module.num_embeddings} × {module.embedding_dim}")
    if isinstance(module, GroupedLinear):
        experts, out, inner = module.weight.shape
        words.append(f"{experts} × ({inner} → {out})" + (", bias" if module.bias is not None else ""))
    if isinstance(module, Experts):
        experts, hidden, width = module.up_proj.weight.shape
        words.append(f"{experts} × ({width} → {hidden} → {width})")
    if isinstance(module, Gate):
        words.append(f"{module.num_experts} experts" + (f", {module.k} a token" if hasattr(module, "k") else ""))
    words += list(_attention_words(module))
    eps = getattr(module, "eps", None)
    if isinstance(eps, float):
        words.append(f"ε {eps:g}")
    act = getattr(module, "act", None)
    if act is not None:
        act = getattr(act, "func", act)  # a partial
        words.append(getattr(act, "__name__", type(act).__name__).lower())
    return ", ".join(words)


def _attention_words(module: nn.Module) -> Iterator[str]:
    if isinstance(module, GatedDeltaNet):
        keys = module.k_proj.out_features // module.k_head_dim
        yield f"{module.num_heads} memories of {module.k_head_dim} × {module.head_dim}"
        yield f"{keys} key heads"
        yield f"convolution of {module.conv.kernel_size[0]}"
        return
    d, q, k = (getattr(module, name, None) for name in ("head_dim", "q_proj", "k_proj"))
    if isinstance(d, int) and isinstance(q, nn.Linear) and isinstance(k, nn.Linear):
        heads, kv_heads = q.out_features // d, k.out_features // d
        yield f"{heads} heads of {d}" + (f", {kv_heads} for keys and values" if kv_heads != heads else "")
    if isinstance(module, BorrowingAttention) and isinstance(q, nn.Linear):
        yield f"{q.out_features // module.head_dim} heads of {d}, keys and values of {module.source}"
    if isinstance(module, LatentAttention):
        yield f"a latent of {module.kv_down_proj.out_features} and a rotary key of {module.rope.dim}"
    rope = getattr(module, "rope", None)
    if rope is not None and isinstance(d, int):
        share = getattr(getattr(rope, "scaling", None), "share", 1.0)
        turned = int(share * rope.dim // 2) * 2
        part = "" if turned == d else f"{turned} of {d} features, "
        yield f"rotary ({part}θ {rope.theta:,.0f})"
    window = getattr(getattr(module, "mask", None), "window", None)
    if window is not None:
        yield f"window of {window:,}"


def _state_bytes(model: Any) -> tuple[int | None, int | None]:
    """(bytes in bf16 that a token adds, bytes that stay constant), by two probing passes of different lengths."""
    sizes = []
    most = model.config.max_position_embeddings or 2 * PROBE  # positions may be a table
    half = max(1, min(PROBE, most // 2))
    for length in (half, 2 * half):
        try:
            state = model.make_state(1, length)
            with torch.no_grad():
                model(torch.zeros(1, length, dtype=torch.int64, device="meta"), state=state)
            sizes.append({name: layer.nbytes for name, layer in state.layers.items()})
        except (NotImplementedError, RuntimeError, KeyError, AttributeError):
            return None, None
    element = torch.finfo(model.dtype).bits // 8
    short, long = sizes
    constant = sum(size for name, size in short.items() if size == long[name])
    per_token = (sum(long.values()) - sum(short.values())) // half * 2 // element
    return per_token, constant
