"""`groundup export gguf`: a model and its tokenizer as one file that llama.cpp runs.

The file is read again before it takes its name: the tokenizer must give the same ids, and the model must say what its
source says, within what the rounding of the type explains.
"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, warn
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import atomic_file, check_writable
from groundup.commands.command import Command
from groundup.commands.comparing import LONGEST, probe_prompts
from groundup.commands.export import check_vocabulary
from groundup.commands.named_model import model_of, tokenizer_beside

LEAST_SIMILAR = {"f32": 0.9999, "f16": 0.999, "bf16": 0.99, "q8_0": 0.99, "q4_k": 0.8, "q4_0": 0.7}
"""The least cosine between the logits of source and file: far below what rounding leaves, far above a wrong layout."""


class ExportGGUF(Command):
    """Write a model and its tokenizer as a GGUF file, and compare it with its source."""

    source: CliPositionalArg[str]
    """A run folder (its final/ is taken), a folder or file of weights in any known form, or a name (`tiny`)."""
    out_file: Path
    """The file to write, such as model.gguf."""
    type: Literal["q8_0", "q4_k", "q4_0", "f16", "bf16", "f32"] = "q8_0"
    """How matrices are stored: q8_0 8.5 bits a weight, q4_k 4.5 with some parts in 6.6, q4_0 4.5, or floats."""
    tokenizer: Path | None = None
    """Take the tokenizer from this folder or file, not from beside the model."""
    overwrite: bool = False
    """Replace the file that is there already."""
    self_test: bool = True
    """Read the result and compare it with the source."""

    def run(self) -> dict[str, Any]:
        """Write, test, and print sizes."""
        source = model_of(self.source)
        target = Path(os.path.abspath(self.out_file.expanduser()))
        self._check_target(target, source)
        check_writable(target.parent)
        from groundup.models.hub import load_model
        from groundup.quantization.gguf.writing import save_gguf
        from groundup.tokenizers.hub import load_tokenizer

        say(f"loading {source}")
        model = load_model(source)
        tokenizer = tokenizer_beside(source) if self.tokenizer is None else load_tokenizer(self.tokenizer)
        check_vocabulary(model.config.vocab_size, tokenizer)
        if tokenizer is None:
            warn("no tokenizer was found beside the model, so the file has none: give one with --tokenizer")
        with atomic_file(target) as temporary:
            written = save_gguf(model, temporary, self.type, tokenizer, name=Path(source).name)
            similar = self._compare(model, tokenizer, temporary) if self.self_test else None
        self._tell(written, target, similar)
        return {
            "source": str(source),
            "file": str(target),
            "type": self.type,
            "bytes": written.size,
            "weights": written.weights,
            "bits_per_weight": written.bits_per_weight,
            "tensors": written.tensors,
            "larger": written.larger,
            "tokenizer": tokenizer is not None,
            "similarity": similar,
        }

    def _check_target(self, target: Path, source: str) -> None:
        if target.suffix != ".gguf":
            raise UsageError(f"{target.name}: llama.cpp and groundup know such files by their ending: NAME.gguf")
        if target.is_dir():
            raise UsageError(f"{target} is a folder: give a file to --out-file")
        if target.exists() and Path(source).expanduser().exists() and target.samefile(Path(source).expanduser()):
            raise UsageError(f"{target} is the source itself: choose another file")
        if target.exists() and not self.overwrite:
            raise UsageError(f"{target} exists: choose another file, or say --overwrite to replace it")

    def _compare(self, model: Any, tokenizer: Any, path: Path) -> float:
        """The cosine of the logits, over all probe prompts."""
        from groundup.quantization.gguf.loading import load_model
        from groundup.tokenizers.formats.gguf import read

        say("reading it again, to compare")
        limit = model.config.max_position_embeddings or LONGEST
        prompts = probe_prompts(tokenizer, model.config.vocab_size, limit)
        before = logits(model, prompts)
        if tokenizer is not None:
            check_tokenizer(tokenizer, read(path))
        similar = cosine(before, logits(load_model(path, dtype="float32"), prompts))
        if not similar >= LEAST_SIMILAR[self.type]:
            raise CheckpointError(
                f"self-test failed: the logits of the written model have the cosine {similar:.4f} with those of the "
                f"source, at least {LEAST_SIMILAR[self.type]} is expected of {self.type}. Nothing was kept"
            )
        return similar

    def _tell(self, written: Any, target: Path, similar: float | None) -> None:
        say(f"written to {target}: {written}")
        if written.larger:
            kinds = ", ".join(sorted(set(written.larger.values())))
            say(f"{len(written.larger)} matrices have rows that are no whole blocks of {self.type}: stored as {kinds}")
        if similar is not None:
            say(f"cosine of the logits with those of the source: {similar:.5f}")
        say(f"run it: groundup generate {target} 'Once' (matrices: {as_size(written.nbytes)})")


def logits(model: Any, prompts: list[list[int]]) -> list[Any]:
    """Of every prompt, (T, V) float32."""
    import torch

    with torch.inference_mode():
        return [model(torch.tensor([ids], device=model.device))[0].float() for ids in prompts]


def cosine(one: list[Any], other: list[Any]) -> float:
    """Of all logits, after the mean of each position has gone: it changes no probability."""
    import torch

    a, b = (torch.cat([(x - x.mean(-1, keepdim=True)).flatten() for x in xs]) for xs in (one, other))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def check_tokenizer(tokenizer: Any, back: Any) -> None:
    """Raise a `CheckpointError` where the tokenizer of the file gives other ids or another template."""
    from groundup.tokenizers.conversion import PROBES

    for text in PROBES:
        if tokenizer.encode(text) != back.encode(text):
            raise CheckpointError(f"self-test failed: the tokenizer in the file gives other ids for {text!r:.60}")
    if tokenizer.special_tokens != back.special_tokens or tokenizer.chat_template != back.chat_template:
        raise CheckpointError("self-test failed: the tokenizer in the file has other special tokens or templates")
