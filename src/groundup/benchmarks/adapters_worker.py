"""The process in which one way of adapting a model is trained and judged; see `workers.py`."""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from groundup.base.errors import UsageError
from groundup.benchmarks.workers import serve


def answer(
    model: str, adapter: dict[str, Any] | None, quantization: dict[str, Any] | None, lr: float, **settings: Any
) -> dict[str, Any]:
    """Train on the stories of the training split; the figures of this method.

    Args:
        model: folder or name of the base.
        adapter: its settings; None for full fine-tuning or, with lr 0, for the base as it is.
        quantization: settings of the base's form, or None.
        lr: peak learning rate.
        settings: steps, batch, examples, tests, longest, seed, threads.
    """
    from groundup.base.device import memory
    from groundup.base.threads import set_threads
    from groundup.benchmarks.story_plots import accuracy, examples, letter_ids
    from groundup.estimates.adapted import tensor_bytes
    from groundup.models.hub import load_model
    from groundup.tokenizers.hub import load_tokenizer

    set_threads(settings["threads"])
    base, tokenizer = load_model(model, dtype="float32"), load_tokenizer(model)
    try:
        put_on(base, adapter, quantization)
    except UsageError as error:  # a kind that this base has no place for
        return {"refused": str(error)}
    taken, tests, longest = settings["examples"], settings["tests"], settings["longest"]
    train = examples(taken, "train", 1, tokenizer, longest)
    within = examples(tests, "train", 2, tokenizer, longest)
    outside = examples(tests, "test", 3, tokenizer, longest)
    found = {"tokens_per_second": 0.0, "loss": 0.0} if not lr else trained(base, train, lr, settings)
    letters = letter_ids(tokenizer)
    base.eval()
    return found | {
        "parameters": base.num_parameters(),
        "trained": base.num_parameters(trainable=True) if lr else 0,
        "weight_bytes": tensor_bytes(base),
        "peak_memory": memory("cpu").peak,
        "within": accuracy(base, within, letters),
        "outside": accuracy(base, outside, letters),
    }


def put_on(model: Any, adapter: dict[str, Any] | None, quantization: dict[str, Any] | None) -> None:
    """Put an adapter on a base, which may be quantized first."""
    from pydantic import TypeAdapter

    from groundup.adapters.attach import add_adapter
    from groundup.adapters.configs import AnyAdapter
    from groundup.quantization.configs import AnyQuantization
    from groundup.quantization.exchange import quantize

    if quantization is not None:
        quantize(model, TypeAdapter(AnyQuantization).validate_python(quantization))
    if adapter is not None:
        add_adapter(model, TypeAdapter(AnyAdapter).validate_python(adapter))


def trained(model: Any, train: Any, lr: float, settings: dict[str, Any]) -> dict[str, float]:
    """Train by the one loop; tokens a second (median of the logged steps) and the last loss."""
    from groundup.benchmarks.story_plots import batches
    from groundup.training.config import TrainingConfig
    from groundup.training.loop import fit
    from groundup.training.objectives.language_modeling import LanguageModeling
    from groundup.training.optimizers.config import AdamWConfig
    from groundup.training.schedules import Cosine

    steps = settings["steps"]
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(
            steps=steps,
            batch_size=settings["batch"],
            optimizer=AdamWConfig(lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
            schedule=Cosine(warmup_steps=max(1, steps // 20)),
            compile=False,
            checkpoint_every=10**9,
            seed=settings["seed"],
            out_dir=Path(folder) / "run",
        )
        data = batches(train, settings["batch"], settings["seed"])
        run = fit(model, LanguageModeling(), data, config)
        events = run.metrics("train")
    rates = [event["tokens_per_second"] for event in events]
    losses = [event["loss"] for event in events[-20:]]
    return {"tokens_per_second": statistics.median(rates), "loss": statistics.fmean(losses)}


if __name__ == "__main__":
    serve(answer)
