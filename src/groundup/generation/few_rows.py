"""`for_decoding`: the same model, with linear layers made for the few rows of a decoding step.

On a processor a step's time is that of reading the weights, and general matrix products read them at half speed (one
row), or compute at half speed (16 rows). Here weights stay as they are stored, float32 or bfloat16, and all arithmetic
is float32: a bfloat16 checkpoint gives what it gives when loaded in float32, in half the time and memory.
"""

import copy
import functools
import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.replace import replace

MOST_ROWS = 32  # from here on a general matrix product is as fast
FEWEST_PARAMETERS = 20_000_000  # smaller models are faster than the kernel is compiled (2 s once)
MOST_WIDENED = 0.01  # share of the parameters that may be copied to float32 (norms, biases)
STORED = (torch.float32, torch.bfloat16)


def for_decoding(model: Any, fewest_parameters: int = FEWEST_PARAMETERS) -> Any:
    """A second tree of modules over the model's own weights that decodes faster; the model where there is none.

    There is none without numba, off the CPU, for small models, for dtypes other than float32 and bfloat16, while hooks
    read the model's parts, and where many weights are in other modules than linear layers and embeddings.
    """
    return _faster(model) if suits(model, fewest_parameters) else model


def suits(model: nn.Module, fewest_parameters: int) -> bool:
    """Whether `for_decoding` has something faster for this model."""
    weights = list(model.parameters())
    if sum(weight.numel() for weight in weights) < fewest_parameters or importlib.util.find_spec("numba") is None:
        return False
    plain = all(
        type(w.data) is Tensor and w.device.type == "cpu" and w.dtype in STORED and w.is_contiguous() for w in weights
    )
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return plain and not hooked and sum(w.numel() for w in _others(model)) <= MOST_WIDENED * sum(
        w.numel() for w in weights
    )


def _others(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that neither a linear layer's weight nor an embedding is."""
    matrices = {id(m.weight) for m in model.modules() if type(m) in (nn.Linear, nn.Embedding)}
    return [p for p in model.parameters() if id(p) not in matrices]


def _faster(model: nn.Module) -> nn.Module:
    own = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    view = copy.deepcopy(model, own)  # modules are copied, tensors are shared
    for kind, make in ((nn.Linear, FewRowsLinear), (nn.Embedding, WidenedEmbedding)):
        names = [name for name, module in view.named_modules() if type(module) is kind]
        if names:
            replace(view, names, make)
    for module in view.modules():
        if not isinstance(module, FewRowsLinear | WidenedEmbedding):
            for name, weight in module._parameters.items():
                if weight is not None and weight.dtype != torch.float32:
                    module._parameters[name] = nn.Parameter(weight.float(), requires_grad=False)
    return view.eval()


class FewRowsLinear(nn.Module):
    """x @ weight^T + bias in float32, the weight as it is stored. Made from a linear layer; forward only.

    (..., D) float32 -> (..., N) float32
    """

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.weight: Tensor = linear.weight  # type: ignore[assignment]
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.float(), requires_grad=False)
        self.fits = self.weight.shape[1] % 32 == 0

    def forward(self, x: Tensor) -> Tensor:
        n, k = self.weight.shape
        m = x.numel() // k
        if m > MOST_ROWS or not self.fits:
            return F.linear(x, self.weight.float(), self.bias)
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], n)
        kernel(self.weight.dtype)(self.weight.data_ptr(), x.data_ptr(), y.data_ptr(), n, m, k)
        return y if self.bias is None else y.add_(self.bias)


class WidenedEmbedding(nn.Module):
    """Rows of a stored matrix, as float32."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.weight: Tensor = embedding.weight  # type: ignore[assignment]

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float()


@functools.cache
def kernel(dtype: torch.dtype) -> Any:
    """The compiled product for weights of this dtype, with as many threads as torch uses."""
    import numba

    from groundup.generation.few_rows_kernel import product

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    return product(dtype == torch.bfloat16)
