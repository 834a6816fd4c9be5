"""One update, ours and the peers': the same model, tokens, clipping and AdamW.

Ours      the package's own `Step`, optimizer and objective, as `groundup train` puts them together
Plain     a plain PyTorch loop around transformers' model, or nanoGPT's, with torch's fused AdamW
"""

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.adapters.attach import add_adapter
from groundup.adapters.configs.lora import LoRAConfig
from groundup.base.errors import UsageError
from groundup.benchmarks.peers import transformers_config
from groundup.benchmarks.train_cases import Case
from groundup.models.hub import build_model
from groundup.models.text.causal_lm import CausalLM

RATE, BETAS, DECAY, CLIP = 3e-4, (0.9, 0.95), 0.1, 1.0
RANK = 8


class Trainer(Protocol):
    """A model in training."""

    def update(self, batch: dict[str, Tensor]) -> float:
        """One update; the loss before it."""
        ...


def make_trainer(
    case: Case, who: str, variant: str, seed: int, nanogpt: Path | None = None, device: str = "cpu"
) -> Trainer:
    """The trainer of `who` (groundup, transformers, peft, nanogpt) in a variant such as `fp32`, `bf16+compile` or, of
    ours, `fp32+lora`; peft's is always LoRA.

    All begin with the same weights.
    """
    torch.manual_seed(seed)
    model = build_model(case.config())
    words = variant.split("+")
    if who == "groundup":
        return Ours(model, words, device)
    peer = nanogpt_model(model, case, nanogpt) if who == "nanogpt" else transformers_model(model)
    if who == "peft":
        put_peft_lora(peer.model)
    return Plain(peer, words, device)


class Ours:
    """The package's training step."""

    def __init__(self, model: CausalLM, words: list[str], device: str = "cpu"):
        from groundup.training.compilation import compiled
        from groundup.training.distributed import Workers
        from groundup.training.kernels.install import accelerated
        from groundup.training.objectives.language_modeling import LanguageModeling
        from groundup.training.optimizers.config import AdamWConfig
        from groundup.training.precision import PrecisionConfig
        from groundup.training.step import Step

        precision = PrecisionConfig(
            dtype="bf16" if "bf16" in words else "fp32", weights="copies" if "copies" in words else "autocast"
        )
        model.to(device, precision.parameter_dtype())
        if "lora" in words:
            add_adapter(model, LoRAConfig(rank=RANK, alpha=2 * RANK))
        optimizer = AdamWConfig(lr=RATE, betas=BETAS, weight_decay=DECAY).build(model.named_parameters())
        forward, plain = compiled(model, "compile" in words), "plain" in words
        workers = Workers(torch.device(device))
        self.step = Step(forward, model, LanguageModeling(), optimizer, precision, workers, clip=CLIP)
        model.train()
        self.kernels = accelerated(model, not plain and device == "cpu", compiled=forward is not model)
        self.kernels.__enter__()

    def update(self, batch: dict[str, Tensor]) -> float:
        """One update; the loss before it."""
        return self.step(batch).loss


class Plain:
    """A loop as one would write it: forward, cross-entropy, backward, clip, fused AdamW."""

    def __init__(self, model: nn.Module, words: list[str], device: str = "cpu"):
        self.model, self.bf16, self.device = model.to(device).train(), "bf16" in words, torch.device(device)
        learning = [p for p in model.parameters() if p.requires_grad]
        matrices, vectors = [p for p in learning if p.ndim >= 2], [p for p in learning if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=RATE, betas=BETAS, fused=True
        )
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.cross_entropy
        if "compile" in words:
            self.loss = torch.compile(self.cross_entropy)

    def cross_entropy(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        return F.cross_entropy(self.model(ids).flatten(0, 1), labels.flatten())

    def update(self, batch: dict[str, Tensor]) -> float:
        """One update; the loss before it."""
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with autocast:
            loss = self.loss(batch["ids"].to(self.device), batch["labels"].to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


class Logits(nn.Module):
    """A peer's model whose result is the logits alone."""

    def __init__(self, model: nn.Module, read: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.model, self.read = model, read

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.model, ids)


def put_peft_lora(model: Any) -> None:
    """Put peft's LoRA on every linear layer of a transformers model but the head, as `all-linear` means in both."""
    from peft import LoraConfig, inject_adapter_in_model

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    inject_adapter_in_model(settings, model)


def transformers_model(model: CausalLM) -> "Logits":
    """The same weights in transformers' class."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        theirs = AutoModelForCausalLM.from_pretrained(folder, config=transformers_config(folder), dtype=torch.float32)
    return Logits(theirs, lambda peer, ids: peer(ids, use_cache=False).logits)


def nanogpt_model(model: CausalLM, case: Case, folder: Path | None) -> nn.Module:
    """The same weights in nanoGPT's GPT, whose linear layers hold the transpose of GPT-2's."""
    module: Any = import_file(folder)
    settings = module.GPTConfig(
        block_size=case.context, vocab_size=case.vocabulary, n_layer=case.layers, n_head=case.heads,
        n_embd=case.width, dropout=0.0, bias=True,
    )  # fmt: skip
    theirs = module.GPT(settings)
    own = model.state_dict()
    saved = dict(type(model).weight_map(model.config).save(list(own), own.__getitem__))
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            value = saved[name]
            transposed = weight.ndim == 2 and ".h." in name
            weight.copy_(value.t() if transposed else value)
    # With targets the model returns all logits; without, only those of the last token.
    return Logits(theirs, lambda peer, ids: peer(ids, ids)[0])


def import_file(folder: Path | None) -> Any:
    """The model.py of nanoGPT, imported from where it lies."""
    path = (folder or Path("nanoGPT")) / "model.py"
    if not path.is_file():
        raise UsageError(f"no nanoGPT at {path.parent}: give the folder that holds its model.py")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
