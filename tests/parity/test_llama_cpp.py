"""The files that `export gguf` writes, run by llama.cpp: the same tokens, logits and text."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from gguf_models import PACKED, SHAPES, logits, make, numbers, relative_errors, theirs
from groundup.models.hub import load_model
from groundup.quantization.gguf.blocks import quantize
from groundup.quantization.gguf.writing import save_gguf
from groundup.tokenizers.conversion import PROBES
from groundup.tokenizers.hub import load_tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install llama-cpp-python")
pytestmark = pytest.mark.slow

F32 = 0
PROMPTS = ("Once upon a time there was a", "Mara went to the", "The fox said: ")
# llama.cpp rounds what is multiplied with packed matrices to 8 bits, and with 16-bit ones to 16 bits; its GELU is a
# table of float16. What each leaves in logits of a spread of about 0.9, with room for other processors.
NOISE = {"f32": 1e-4, "f16": 0.02, "bf16": 0.2, "q8_0": 0.5, "q4_0": 0.5, "q4_k": 0.6}
TABLE = {"gemma", "gemma2", "gpt2"}
TOKENIZERS = {
    **dict.fromkeys(("qwen2", "llama-3.1", "gpt2"), "gpt2-encoder.json"),
    **dict.fromkeys(("qwen3", "olmo2"), "gpt-neox-20b.json"),
}


def run(path):
    """llama.cpp with keys and values in float32."""
    settings = dict(n_ctx=128, n_batch=128, n_threads=1, type_k=F32, type_v=F32, flash_attn=False)
    return llama_cpp.Llama(str(path), logits_all=True, verbose=False, **settings)


def their_logits(llama, ids):
    llama.reset()
    llama.eval(ids)
    return torch.from_numpy(np.array(llama.scores[: len(ids)]))


def their_text(llama, ids, count):
    """The `count` most likely next tokens, one by one."""
    llama.reset()
    llama.eval(ids)
    found = []
    for _ in range(count):
        found.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(found[-1:])
    return found


def assert_same_text(model, prompt, found, noise):
    """Every token of theirs is our most likely one after the same tokens, or lies as near to it as the noise is."""
    row = [*prompt, *found]
    ours = logits(model, row)[len(prompt) - 1 : -1]
    chosen = ours.gather(1, torch.tensor(found)[:, None])[:, 0]
    assert (ours.amax(1) - chosen).max() <= noise
    return (ours.argmax(1) == torch.tensor(found)).float().mean().item()


@pytest.mark.row("QNT-12", reference="llama.cpp")
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_the_built_in_model_writes_the_same_text(kind, tmp_path):
    tokenizer = load_tokenizer("tiny")
    save_gguf(load_model("tiny", dtype="float32"), tmp_path / "m.gguf", kind, tokenizer)
    packed = kind.startswith("q")
    model, llama = load_model(tmp_path / "m.gguf", None if packed else "float32"), run(tmp_path / "m.gguf")
    same = []
    for text in PROMPTS:
        ids = tokenizer.encode(text)
        assert llama.tokenize(text.encode(), add_bos=False) == ids
        found = their_text(llama, ids, 60)
        same.append(assert_same_text(model, ids, found, NOISE[kind]))
        assert llama.detokenize(found).decode() == tokenizer.decode(found)
    assert min(same) == 1.0 if kind in ("f32", "f16") else min(same) > 0.9


@pytest.mark.row("QNT-12", reference="llama.cpp")
@pytest.mark.parametrize("name", SHAPES)
def test_every_architecture_computes_the_same(name, shared, tmp_path):
    tokenizer = load_tokenizer(shared / "tokenizers" / TOKENIZERS.get(name, "llama2.model"))
    model = make(name, -(-tokenizer.vocab_size // 64) * 64)
    ids = torch.randint(5, tokenizer.vocab_size, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    for kind in ("f32", "q8_0", "q4_k"):
        save_gguf(model, tmp_path / "m.gguf", kind, tokenizer)
        loaded, llama = load_model(tmp_path / "m.gguf"), run(tmp_path / "m.gguf")
        ours, found = logits(loaded, ids), their_logits(llama, ids)
        noise = max(NOISE[kind], 0.01 if name in TABLE else 0)
        # An expert more or less is chosen where two gates are nearly alike: then the token is another one altogether.
        far = (ours - found).abs().amax(1) > noise
        assert far.float().mean() <= (0.3 if name == "mixtral" and kind != "f32" else 0), (kind, far)
        text = their_text(llama, ids[:8], 24)
        if kind == "f32":
            assert assert_same_text(loaded, ids[:8], text, noise) == 1.0
        elif name != "mixtral":
            assert assert_same_text(loaded, ids[:8], text, noise) > 0.7
        llama.close()


@pytest.mark.row("QNT-12", reference="llama.cpp")
@pytest.mark.parametrize("name", ["gpt2-encoder.json", "gpt-neox-20b.json", "llama2.model"])
def test_llama_cpp_gives_the_same_ids(name, shared, tmp_path):
    tokenizer = load_tokenizer(shared / "tokenizers" / name)
    save_gguf(make("llama", tokenizer.vocab_size + 3), tmp_path / "m.gguf", "q8_0", tokenizer)
    llama = run(tmp_path / "m.gguf")
    for text in PROBES:
        if tokenizer.decode(tokenizer.encode(text)) == text:  # what no normal form changes: llama.cpp knows none
            assert llama.tokenize(text.encode(), add_bos=False) == tokenizer.encode(text), text
    if tokenizer.bos_id is not None and name == "llama2.model":
        assert llama.tokenize(b"a") == tokenizer.encode("a", bos=True)
    assert llama.tokenize(b"</s><|endoftext|>", add_bos=False) == tokenizer.encode("</s><|endoftext|>")


@pytest.mark.row("QNT-12", reference="llama.cpp")
@pytest.mark.parametrize("kind", PACKED)
def test_the_search_for_scales_is_as_good_as_llama_cpps(kind):
    """Of each row: at most 1 % above; sums in another order decide ties otherwise."""
    library = ctypes.CDLL(str(next(Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so"))))
    x, ours = numbers(), quantize(numbers(), kind)
    packed = torch.zeros_like(ours)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_chunk(theirs(kind).value, x.data_ptr(), packed.data_ptr(), 0, *x.shape, None)
    assert (ours != packed).float().mean() < 0.02
    assert (relative_errors(ours, kind) <= 1.01 * relative_errors(packed, kind)).all()
    if kind in ("q8_0", "q4_0"):
        assert torch.equal(ours, packed)
