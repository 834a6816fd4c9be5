"""The process of one form of weights: it measures quality, or decodes when asked; see `workers.py`."""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

from groundup.base.errors import UsageError
from groundup.benchmarks.workers import serve

CALIBRATION_SEED, HELD_OUT_SEED = 17, 18  # stories that the built-in model has not read
_state: dict[str, Any] = {}


def answer(
    quality: dict[str, Any] | None = None, prepare: dict[str, Any] | None = None, new: int = 0
) -> dict[str, Any] | float:
    """Do the one thing that is asked for: measure quality, get ready to decode, or decode `new` tokens."""
    if quality is not None:
        return measure_quality(**quality)
    return get_ready(**prepare) if prepare is not None else decode(new)


def measure_quality(model: str, form: dict[str, Any] | None, name: str, rows: int) -> dict[str, Any]:
    """Bits a weight, bytes of the folder, loss on held-out stories, of a model in a form."""
    from groundup.base.device import memory
    from groundup.data.builtin.stories import StoriesConfig, documents
    from groundup.models.hub import load_model
    from groundup.quantization.calibration import loss_on, token_rows
    from groundup.quantization.exchange import quantize
    from groundup.tokenizers.hub import load_tokenizer

    loaded, tokenizer = load_model(model, dtype="float32"), load_tokenizer(model)
    train, test = (
        token_rows(
            (d.text for d in documents(StoriesConfig(seed=seed, documents=40 * rows))),
            tokenizer,
            256,
            rows,
        )
        for seed in (CALIBRATION_SEED, HELD_OUT_SEED)
    )
    start = time.perf_counter()
    bits = 32.0
    if form is not None:
        config = parsed(form)
        try:
            report = quantize(loaded, config, train if config.calibrated else None)
        except UsageError as error:
            return {"refused": str(error)}
        bits = report.bits_per_weight
    elif name == "bf16":
        loaded.bfloat16()
        bits = 16.0
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        loaded.save_pretrained(folder)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    loss = loss_on(loaded, test)
    return {
        "bits_per_weight": bits,
        "file_bytes": size,
        "loss": loss,
        "perplexity": math.exp(loss),
        "seconds": seconds,
        "peak_memory": memory("cpu").peak,
    }


def parsed(form: dict[str, Any]) -> Any:
    """Settings of a method."""
    from pydantic import TypeAdapter

    from groundup.quantization.configs import AnyQuantization

    return TypeAdapter(AnyQuantization).validate_python(form)


def get_ready(folder: str, form: dict[str, Any] | None, threads: int | None) -> dict[str, Any]:
    """Load, quantize every linear layer while it is read, the head too, and decode a little."""
    import torch

    from groundup.base.device import memory
    from groundup.base.threads import set_threads
    from groundup.estimates.adapted import tensor_bytes
    from groundup.generation import few_rows
    from groundup.models.hub import load_model
    from groundup.quantization.streaming import load_quantized

    set_threads(threads)
    few_rows.load()
    model: Any = load_model(folder) if form is None else load_quantized(folder, parsed(form | {"targets": ["*"]}))
    embedding = model.embed.tokens.weight.nbytes  # a step reads one row of it
    _state["model"] = few_rows.for_decoding(model)
    _state["ids"] = torch.arange(32)[None]
    decode(2)
    return {
        "parameters": model.num_parameters(),
        "weight_bytes": tensor_bytes(model) - embedding,
        "peak_memory": memory("cpu").peak,
    }


def decode(new: int) -> float:
    """Tokens a second of one row, reading the prompt left out."""
    import torch

    model, ids = _state["model"], _state["ids"]
    with torch.inference_mode():
        state = model.make_state(1, ids.shape[1] + new)
        step = model(ids, state=state)[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(new - 1):
            step = model(step, state=state)[:, -1:].argmax(-1)
        return (new - 1) / (time.perf_counter() - start)


if __name__ == "__main__":
    serve(answer)
