"""`groundup merge`: a base and its adapters become one plain model folder."""

import os
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, warn
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import atomic_folder, check_writable
from groundup.commands.command import Command
from groundup.commands.comparing import LONGEST, probe_prompts
from groundup.commands.export import check_target, complete_configs, write_tokenizer
from groundup.commands.named_model import model_of, tokenizer_beside

LEAST_SIMILAR = 0.98
"""The least cosine between logits: weights in 16 bits lose some of a small adapter; a wrong matrix loses far more."""


class Merge(Command):
    """Write a base with adapters taken into its weights: a model folder as any other, of the base's size."""

    adapter: CliPositionalArg[str]
    """A run folder (its final/ is taken) or an adapter's folder, ours or peft's."""
    more: CliPositionalArg[list[str]] = Field(default_factory=list)
    """More adapters of the same base, taken in after it, in this order."""
    out_dir: Path
    """The folder to write."""
    base: str | None = None
    """Folder or hub name of the base, in place of the one that the adapter's config names."""
    dtype: str | None = None
    """float32, bfloat16 or float16: of the written weights; as the base is stored when not given."""
    requantize: bool = False
    """Where the base is quantized: round the merged weights again, which changes results."""
    overwrite: bool = False
    """Replace the model folder that is there already."""
    self_test: bool = True
    """Load the result and compare its logits with those of base and adapters."""

    def run(self) -> dict[str, Any]:
        """Merge, write, test."""
        sources = [adapter_of(source) for source in (self.adapter, *self.more)]
        target = Path(os.path.abspath(self.out_dir.expanduser()))
        check_target(target, sources[0], self.overwrite)
        check_writable(target)
        from groundup.adapters.loading import base_of, load_adapted
        from groundup.adapters.merging import merged
        from groundup.models.hub import load_model, save_model

        base = self.base or str(base_of(Path(sources[0]).expanduser()))
        say(f"loading {base} and {', '.join(sources)}")
        model = load_adapted(sources, base, self.dtype)
        tokenizer, origin = find_tokenizer(sources[0], base)
        before = probe_logits(model, tokenizer) if self.self_test else []
        plain = merged(model, requantize=self.requantize)
        similar = None
        with atomic_folder(target, replace=target.exists()) as folder:
            save_model(plain, folder)
            if Path(base).expanduser().exists() or origin is not None:
                complete_configs(folder, base, tokenizer)
            if origin is not None:
                write_tokenizer(folder, origin, tokenizer)
            if self.self_test:
                say("loading it again, to compare")
                similar = check_similar(before, probe_logits(load_model(folder), tokenizer))
                say(f"the least cosine between logits of base with adapters and of the folder: {similar:.6f}")
        size = sum(file.stat().st_size for file in target.iterdir())
        say(f"written to {target}: {plain.num_parameters():,} parameters, {as_size(size)}")
        return {
            "base": base,
            "adapters": sources,
            "folder": str(target),
            "parameters": plain.num_parameters(),
            "bytes": size,
            "tokenizer": tokenizer is not None,
            "similarity": similar,
        }


def adapter_of(source: str) -> str:
    """The folder of an adapter that is meant; a `UsageError` where there is none."""
    found = model_of(source)
    if not (Path(found).expanduser() / "adapter_config.json").is_file():
        raise UsageError(f"{source} holds no adapter: a folder with adapter_config.json is expected, or such a run")
    return found


def find_tokenizer(adapter: str, base: str) -> tuple[Any, str | None]:
    """The tokenizer beside the adapter or, failing that, beside the base, and where it lies; (None, None) for none."""
    for place in (adapter, base):
        tokenizer = tokenizer_beside(place)
        if tokenizer is not None:
            return tokenizer, place
    warn("no tokenizer was found beside adapter or base, so the folder has none")
    return None, None


def probe_logits(model: Any, tokenizer: Any) -> list[Any]:
    """The logits (T, V) of every probe prompt."""
    import torch

    limit = model.config.max_position_embeddings or LONGEST
    prompts = probe_prompts(tokenizer, model.config.vocab_size, limit)
    with torch.inference_mode():
        return [model(torch.tensor([prompt], device=model.device))[0].float() for prompt in prompts]


def check_similar(before: list[Any], after: list[Any]) -> float:
    """The least cosine between two lists of logits, token by token; a `CheckpointError` where it is too small."""
    from torch.nn.functional import cosine_similarity

    least = min(float(cosine_similarity(a, b, dim=-1).min()) for a, b in zip(before, after, strict=True))
    if not least >= LEAST_SIMILAR:
        raise CheckpointError(
            f"self-test failed: logits of the merged model have a cosine of {least:.4f} with those of base and "
            "adapters. Nothing was kept. In 16 bits a small adapter may be lost in rounding: try --dtype float32"
        )
    return least
