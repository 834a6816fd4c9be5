"""`for_decoding`: the same model, with linear layers made for the few rows of a decoding step.

On a processor a step's time is that of reading the weights, and general matrix products read them at half speed (one
row), or compute at half speed (16 rows). Here weights stay as they are stored, float32 or bfloat16, and all arithmetic
is float32: a bfloat16 checkpoint gives what it gives when loaded in float32, in half the time and memory.
"""

import copy
import importlib.util
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.attention import Attention, AttentionCore
from groundup.layers.block import Block
from groundup.layers.context import Context
from groundup.layers.feedforward import GatedMLP
from groundup.layers.masks import Causal
from groundup.layers.norms import RMSNorm
from groundup.layers.rope import Rope
from groundup.replace import replace

WIDEST_STEP = 64  # what the kernel takes at once of a row, with the widest vectors
MOST_ROWS = 32  # from here on a general matrix product is as fast
FEWEST_PARAMETERS = 20_000_000  # smaller models are faster than the kernel is compiled (2 s once)
MOST_WIDENED = 0.01  # share of the parameters that may be copied to float32 (norms, biases)
LIKE = {torch.float32: np.empty(0, np.float32), torch.bfloat16: np.empty(0, np.uint16)}
"""The dtypes of weights that can be read, as the compiled functions are told them."""


def for_decoding(model: Any, fewest_parameters: int | None = None) -> Any:
    """A second tree of modules over the model's own weights that decodes faster; the model where there is none.

    There is none without numba, off the CPU, for small models, for dtypes other than float32 and bfloat16, while hooks
    read the model's parts, and where many weights are in other modules than linear layers and embeddings.
    """
    fewest = FEWEST_PARAMETERS if fewest_parameters is None else fewest_parameters
    return _faster(model) if suits(model, fewest) else model


def suits(model: nn.Module, fewest_parameters: int) -> bool:
    """Whether `for_decoding` has something faster for this model."""
    weights = list(model.parameters())
    if sum(weight.numel() for weight in weights) < fewest_parameters or importlib.util.find_spec("numba") is None:
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
    """The parameters that neither a linear layer's weight nor an embedding is."""
    matrices = {id(m.weight) for m in model.modules() if type(m) in (nn.Linear, nn.Embedding)}
    return [p for p in model.parameters() if id(p) not in matrices]


def _faster(model: nn.Module) -> nn.Module:
    share_threads()
    own = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    view = copy.deepcopy(model, own)  # modules are copied, tensors are shared
    whole = [name for name, module in view.named_modules() if is_standard(module)]
    for kind, make in ((nn.Linear, FewRowsLinear), (nn.Embedding, WidenedEmbedding)):
        names = [name for name, module in view.named_modules() if type(module) is kind]
        if names:
            replace(view, names, make)
    for module in view.modules():
        if not isinstance(module, FewRowsLinear | WidenedEmbedding):
            for name, weight in module._parameters.items():
                if weight is not None and weight.dtype != torch.float32:
                    module._parameters[name] = nn.Parameter(weight.float(), requires_grad=False)
    if whole:
        replace(view, whole, FewRowsBlock)
    return view.eval()


def share_threads() -> None:
    """Let numba compute with as many threads as torch. They share OpenMP, whose number numba changes as it starts."""
    import numba

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


def is_standard(block: nn.Module) -> bool:
    """Whether the compiled step computes what this block does: the form of Llama, without biases."""
    if type(block) is not Block or [type(part) for part in (block.norm1, block.attn, block.norm2, block.mlp)] != [
        *(RMSNorm, Attention, RMSNorm, GatedMLP)
    ]:
        return False
    attn: Any = block.attn
    linears = [m for m in block.modules() if isinstance(m, nn.Linear)]
    return (
        (attn.q_norm, attn.k_norm, attn.mask, type(attn.core)) == (None, None, Causal(), AttentionCore)
        and attn.position_bias is None
        and type(attn.rope) is Rope
        and (attn.rope.dim, attn.rope.interleaved) == (attn.head_dim, False)
        and block.mlp.act is F.silu
        and all(type(m) is nn.Linear and m.bias is None and m.in_features % WIDEST_STEP == 0 for m in linears)
        and len({m.weight.dtype for m in linears}) == 1
    )


class FewRowsBlock(nn.Module):
    """A standard block that takes a single token a row in one compiled function, and anything else as before."""

    def __init__(self, block: Any):
        super().__init__()
        self.block = block
        attn, mlp = block.attn, block.mlp
        linears = (attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        weights = [part.weight for part in (*linears, block.norm1, block.norm2)]
        self.addresses = tuple(weight.data_ptr() for weight in weights)
        self.eps = (float(block.norm1.eps), float(block.norm2.eps))
        heads, kv_heads = (len(weight) // attn.head_dim for weight in weights[:2])
        self.shape = (weights[0].shape[1], heads, kv_heads, attn.head_dim, len(weights[4]))
        self.scale = attn.core.scale or attn.head_dim**-0.5
        self.dtype = weights[0].dtype

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if x.shape[1] != 1 or len(x) > MOST_ROWS or context.fresh or context.documents is not None:
            return self.block(x, context)
        cache = context.state.layers[self.block.attn.path]  # type: ignore[union-attr]
        tables = context.rotation(self.block.attn.rope, torch.float32)
        x = x.clone(memory_format=torch.contiguous_format)  # the step works in place
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.block_step(
                *(self.addresses, self.eps, self.shape, self.scale, x[:, 0].numpy()),
                *(table[:, 0, 0].numpy() for table in tables),
                *(context.placement.slots[:, 0].numpy(), cache.k.numpy(), cache.v.numpy(), LIKE[self.dtype]),  # type: ignore[union-attr]
            )
        return x


class FewRowsLinear(nn.Module):
    """x @ weight^T + bias in float32, the weight as it is stored. Made from a linear layer; forward only.

    (..., D) float32 -> (..., N) float32
    """

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.weight: Tensor = linear.weight  # type: ignore[assignment]
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.float(), requires_grad=False)  # type: ignore[operator]
        self.fits = self.weight.shape[1] % WIDEST_STEP == 0

    def forward(self, x: Tensor) -> Tensor:
        n, k = self.weight.shape
        m = x.numel() // k
        if m > MOST_ROWS or not self.fits:
            return F.linear(x, self.weight.float(), self.bias)
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], n)
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.multiply(self.weight.data_ptr(), x.data_ptr(), y.data_ptr(), n, m, k, LIKE[self.weight.dtype])
        return y if self.bias is None else y.add_(self.bias)


class WidenedEmbedding(nn.Module):
    """Rows of a stored matrix, as float32."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.weight: Tensor = embedding.weight  # type: ignore[assignment]
        self.num_embeddings, self.embedding_dim = self.weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float()


def kernels() -> Any:
    """The module of compiled functions; imported late because numba is optional."""
    from groundup.generation import few_rows_kernel

    return few_rows_kernel
