"""Which parts of a model are exchanged for faster ones."""

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.generation.few_rows.attention import FewRowsAttention, attends_plainly
from groundup.generation.few_rows.block import FewRowsBlock, is_standard
from groundup.generation.few_rows.feed_forward import FewRowsExperts, FewRowsMLP, chooses_plainly, feeds_plainly
from groundup.generation.few_rows.linear import LIKE, FewRowsLinear, WidenedEmbedding, kernels, readable
from groundup.generation.few_rows.norms import KINDS, FewRowsNorm
from groundup.layers.moe.experts import GroupedLinear
from groundup.replace import replace

FEWEST_PARAMETERS = 20_000_000  # smaller models are faster than numba is loaded, and the functions compiled once
MOST_WIDENED = 0.01  # share of the parameters that may be copied to float32 (norms, biases)
_loaded = False


def load() -> None:
    """Get the compiled functions ready: models of any size use them from then on. For processes that decode much."""
    global _loaded
    if importlib.util.find_spec("numba") is not None:
        kernels()
        _loaded = True


def for_decoding(model: Any, fewest_parameters: int | None = None) -> Any:
    """A second tree of modules over the model's own weights that decodes faster; the model where there is none.

    There is none without numba, off the CPU, for small models (unless `load` was called), for dtypes other than float32
    and bfloat16, while hooks read the model's parts, and where many weights are in other modules than linear layers,
    experts and embeddings.
    """
    smallest = 0 if _loaded else FEWEST_PARAMETERS
    return _faster(model) if suits(model, smallest if fewest_parameters is None else fewest_parameters) else model


def suits(model: Any, fewest_parameters: int) -> bool:
    """Whether `for_decoding` has something faster for this model."""
    weights = list(model.parameters())
    count = getattr(model, "num_parameters", lambda: sum(weight.numel() for weight in weights))  # packed numbers too
    if count() < fewest_parameters or importlib.util.find_spec("numba") is None:
        return False
    plain = all(
        type(w.data) is Tensor and w.device.type == "cpu" and w.dtype in LIKE and w.is_contiguous() for w in weights
    )
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return (
        plain
        and not hooked
        and sum(w.numel() for w in _others(model)) <= MOST_WIDENED * sum(w.numel() for w in weights)
    )


def _others(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are copied to float32 where they are not: all but those of matrices that are read as they
    are stored.
    """
    matrices = {id(m.weight) for m in model.modules() if type(m) in (nn.Linear, nn.Embedding)}
    for experts in (m for m in model.modules() if chooses_plainly(m)):
        matrices |= {id(m.weight) for m in experts.modules() if type(m) is GroupedLinear}
    return [p for p in model.parameters() if id(p) not in matrices]


def _faster(model: nn.Module) -> nn.Module:
    share_threads()
    own = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    view = copy.deepcopy(model, own)  # modules are copied, tensors are shared
    fit: list[tuple[Callable[[Any], nn.Module], list[str]]] = [
        (FewRowsNorm, _names(view, lambda m: type(m) in KINDS)),
        (FewRowsAttention, _names(view, attends_plainly)),
        (FewRowsMLP, _names(view, feeds_plainly)),
        (FewRowsExperts, _names(view, chooses_plainly)),
    ]
    _exchange(view, FewRowsLinear, _names(view, readable))
    _exchange(view, WidenedEmbedding, _names(view, lambda m: type(m) is nn.Embedding))
    _widen(view)
    for make, names in fit:
        _exchange(view, make, names)
    _exchange(view, FewRowsBlock, _names(view, is_standard))
    return view.eval()


def _names(view: nn.Module, wanted: Callable[[Any], bool]) -> list[str]:
    return [name for name, module in view.named_modules() if name and wanted(module)]


def _exchange(view: nn.Module, make: Callable[[Any], nn.Module], names: list[str]) -> None:
    if names:
        replace(view, names, make)


def _widen(view: nn.Module) -> None:
    """Norms and biases in float32. Matrices of experts stay."""
    for module in view.modules():
        if isinstance(module, FewRowsLinear | WidenedEmbedding | GroupedLinear):
            continue
        for name, weight in module._parameters.items():
            if weight is not None and weight.dtype != torch.float32:
                module._parameters[name] = nn.Parameter(weight.float(), requires_grad=False)


def share_threads() -> None:
    """Let numba compute with as many threads as torch. They share OpenMP, whose number numba changes as it starts."""
    import numba

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
