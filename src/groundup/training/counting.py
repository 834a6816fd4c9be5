"""Training without gradients: a family that learns by counting, in a run folder like any other."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.base.console import say
from groundup.base.errors import UsageError
from groundup.models.ngrams.lookup import log2_probabilities
from groundup.models.ngrams.smoothing import smooth
from groundup.training.run import Run

if TYPE_CHECKING:
    from groundup.data.load import Data
    from groundup.data.tokens import Tokens
    from groundup.training.config import TrainingConfig

Sampler = Callable[[Any, Sequence[str]], list[str]]


def count(
    config: Any,
    data: "Data",
    training: "TrainingConfig",
    *,
    tokenizer: Any,
    settings: Any,
    sample: Sampler,
    prompts: Sequence[str],
) -> Run:
    """Count all training documents once, measure on the held-out ones, write samples and final/.

    Args:
        config: an NGramConfig.
        data: all its training documents are read once; weights of a mixture have no say.
        training: where the run folder lies, and its seed; steps and optimizer have no say.
        tokenizer: is saved beside the model.
        settings: what config.yaml tells.
        sample: (model, prompts) -> one continuation for each.
        prompts: what to continue.
    """
    from groundup.models.text.ngram import NGramLM

    run = Run(training.out_dir or Run.new_path())
    if run.config_path.exists() and training.resume == "none":
        raise UsageError(f"{run.path} holds a run already: choose another out_dir, or resume: auto")
    run.begin(settings, training.seed)
    run.rewind({})
    began, documents = time.perf_counter(), documents_of([parts["train"] for parts in data.tokens.values()])

    def log(event: str, numbers: dict[str, Any]) -> None:
        run.append({"step": 1, "event": event, "time": round(time.perf_counter() - began, 3), **numbers})

    tables = smooth(documents, config.order, config.vocab_size, config.smoothing)
    model = NGramLM.from_tables(config, tables)
    tokens = sum(map(len, documents))
    say(f"counted {tokens:,} tokens: {sum(model.config.grams):,} n-grams up to order {config.order}")
    held_out = [parts["validation"] for parts in data.tokens.values() if len(parts["validation"])]
    if held_out:
        numbers = measure(lambda document: log2_probabilities(tables, document), held_out)
        log("evaluate", {**numbers, "tokens": tokens})
        say(f"held-out text: {numbers['loss']:.3f} nats per token")
    model.save_pretrained(run.final)
    tokenizer.save_pretrained(run.final)
    for prompt, text in zip(prompts, sample(model, prompts), strict=True):
        run.append_sample({"step": 1, "prompt": prompt, "text": text})
        say(f"{prompt}|{text}")
    log("stop", {"reason": "finished"})
    return run


def documents_of(tokens: Sequence["Tokens"]) -> list[np.ndarray]:
    """Every document of every source, (n,) int64 each."""
    return [part.document(index) for part in tokens for index in range(part.num_documents)]


def measure(log2: Callable[[np.ndarray], np.ndarray], held_out: Sequence["Tokens"]) -> dict[str, float]:
    """Loss (nats per token) of whole documents, and bits_per_byte where bytes are known."""
    bits = [-log2(document) for document in documents_of(held_out)]
    total, count = sum(float(b.sum()) for b in bits), sum(map(len, bits))
    numbers = {"loss": total * math.log(2) / max(1, count)}
    size = sum(part.num_bytes for part in held_out)
    return numbers | ({"bits_per_byte": total / size} if size else {})
