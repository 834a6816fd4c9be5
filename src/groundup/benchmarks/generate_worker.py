"""One decoder of the benchmark in a process of its own.

    python -m groundup.benchmarks.generate_worker ours FOLDER THREADS CLOCK DEVICE DTYPE
    python -m groundup.benchmarks.generate_worker transformers FOLDER THREADS CLOCK DEVICE DTYPE dynamic|static|compiled

It answers with the seconds that greedy decoding took and the new ids, or with the machine's bandwidth, or with
the most memory it has held.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from groundup.base.device import memory as device_memory
from groundup.base.device import synchronize
from groundup.base.threads import set_threads
from groundup.benchmarks.peers import transformers_config
from groundup.benchmarks.workers import serve

Decode = Callable[[list[list[int]], int], list[list[int]]]


def ours(folder: str, device: str, dtype: str) -> Decode:
    """`generate` as a process calls it that decodes much."""
    from groundup.generation import few_rows
    from groundup.generation.generate import generate
    from groundup.models.hub import load_model
    from groundup.tokenizers.hub import load_tokenizer

    model, tokenizer = load_model(folder, dtype=dtype, device=device), load_tokenizer(folder)
    few_rows.load()

    def run(prompts: list[list[int]], new: int) -> list[list[int]]:
        results = generate(model, tokenizer, prompts, temperature=0, max_new_tokens=new, ignore_eos=True)
        return [one.ids for one in results]

    return run


def transformers(folder: str, device: str, dtype: str, cache: str) -> Decode:
    """`generate` of transformers: SDPA where the model has attention, and the cache of this variant."""
    from transformers import AutoModelForCausalLM, CompileConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = transformers_config(folder)
    family: Any = AutoModelForCausalLM._model_mapping[type(config)]
    attention = {"attn_implementation": "sdpa"} if family._supports_sdpa else {}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, **attention).eval()
    model.to(device)
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    if cache != "dynamic":
        options |= {"cache_implementation": "static"}
    if cache == "compiled":
        compiling: Any = CompileConfig(fullgraph=False, mode="default")
        compiling._compile_all_devices = True  # transformers compiles on a CPU only when told so
        options |= {"compile_config": compiling}

    def run(prompts: list[list[int]], new: int) -> list[list[int]]:
        ids = torch.tensor(prompts, device=device)
        with torch.inference_mode():
            found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **options)
        return found[:, ids.shape[1] :].tolist()

    return run


def bandwidth(clock: Callable[[], float], device: str = "cpu", megabytes: int = 256, rounds: int = 5) -> float:
    """Bytes a second that this process reads from memory: the best of a matrix-vector product, ours, and a sum."""
    matrix = torch.ones(megabytes, 1 << 18, device=device)  # float32: 4 bytes each
    x = torch.ones(matrix.shape[1], device=device)
    readers: list[Callable[[], Any]] = [lambda: matrix @ x, matrix.sum]
    if device == "cpu" and importlib.util.find_spec("numba"):
        from groundup.generation.few_rows.linear import LIKE, kernels

        y, multiply, like = torch.empty(len(matrix)), kernels().multiply, LIKE[matrix.dtype]
        readers.append(lambda: multiply(matrix.data_ptr(), x.data_ptr(), y.data_ptr(), len(matrix), 1, len(x), like))
    return max(matrix.nbytes / seconds(read, clock) for read in readers for _ in range(rounds))


def seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """What one call takes."""
    start = clock()
    run()
    return clock() - start


def main(kind: str, folder: str, threads: str, clock: str, device: str, *variant: str) -> None:
    """Load, then answer."""
    set_threads(int(threads) or None)
    read = {"wall": time.perf_counter, "processor": time.process_time}[clock]
    decode = {"ours": ours, "transformers": transformers}[kind](folder, device, *variant)

    def now() -> float:
        synchronize(device)  # what was asked of a GPU is done
        return read()

    def answer(prompts: list[list[int]] | None = None, new: int = 1, memory: bool = False) -> Any:
        if memory:
            return device_memory(device).peak
        if prompts is None:
            return bandwidth(now, device)
        start = now()
        ids = decode(prompts, new)
        return {"seconds": now() - start, "ids": ids}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
