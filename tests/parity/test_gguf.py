"""GGUF files held against the `gguf` package: packed numbers, tensors, tokenizers, models there and back."""

import gguf
import numpy as np
import pytest
import torch
from torch import nn

from families import CASES
from gguf_models import PACKED, SHAPES, logits, make, numbers, relative_errors, theirs
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.gguf_container import TENSOR_TYPES, GGUFFile, NewTensor, write_gguf
from groundup.models.catalogue import config_from_hf
from groundup.models.hub import load_model
from groundup.quantization.gguf.architectures import BY_FAMILY, architecture_of
from groundup.quantization.gguf.blocks import dequantize, quantize
from groundup.quantization.gguf.linear import GGUFLinear
from groundup.quantization.gguf.writing import save_gguf
from groundup.tokenizers.conversion import PROBES
from groundup.tokenizers.hub import load_tokenizer
from nasty_corpus import _EDGES

IDS = [3, 17, 5, 5, 60, 1, 33, 2, 48, 9, 21, 7]


@pytest.mark.row("QNT-12", reference="gguf")
@pytest.mark.parametrize("kind", [*PACKED, "f32", "f16", "bf16"])
def test_packed_numbers_stand_for_what_gguf_says(kind):
    packed = quantize(numbers(), kind)
    random = torch.randint(256, packed.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    if kind in PACKED:  # any bytes, scales that are no numbers too
        with np.errstate(invalid="ignore"):
            known = gguf.quants.dequantize(random.numpy(), theirs(kind))
        np.testing.assert_array_equal(dequantize(random, kind).numpy(), known)
    np.testing.assert_array_equal(
        dequantize(packed, kind).numpy(), gguf.quants.dequantize(packed.numpy(), theirs(kind))
    )


@pytest.mark.row("QNT-12", reference="gguf")
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "bf16"])
def test_numbers_are_packed_as_gguf_packs_them(kind):
    known = gguf.quants.quantize(numbers().numpy(), theirs(kind))
    np.testing.assert_array_equal(quantize(numbers(), kind).numpy(), known)


@pytest.mark.parametrize(("kind", "bound"), [("q8_0", 0.01), ("q4_0", 0.1), ("q4_k", 0.095), ("q6_k", 0.025)])
def test_packing_stays_within_its_error(kind, bound):
    assert relative_errors(quantize(numbers(), kind), kind).max() < bound


def test_rows_that_are_no_whole_blocks_are_refused():
    with pytest.raises(UsageError, match="rows of 100 numbers"):
        quantize(torch.ones(2, 100), "q4_k")


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("QNT-12", reference="gguf")
@pytest.mark.parametrize("name", SHAPES)
def test_a_model_there_and_back(name, tmp_path):
    model = make(name)
    save_gguf(model, tmp_path / "m.gguf", "f32")
    back = load_model(tmp_path / "m.gguf")
    torch.testing.assert_close(logits(back, IDS), logits(model, IDS))
    sizes = ("hidden_size", "num_hidden_layers", "max_position_embeddings", "tie_word_embeddings")
    assert all(getattr(back.config, size) == getattr(model.config, size) for size in sizes)


@pytest.mark.row("QNT-12", reference="gguf")
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_k", "f16", "bf16"])
def test_the_gguf_package_reads_equal_tensors(kind, tmp_path):
    model = make("llama-biased")
    written = save_gguf(model, tmp_path / "m.gguf", kind)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = {t.name: t for t in reader.tensors}
    assert {name: t.tensor_type.name.lower() for name, t in found.items()} == written.tensors
    weights = model.state_dict()
    for theirs_, ours in {
        "token_embd.weight": "embed.tokens.weight",
        "blk.1.attn_v.weight": "blocks.1.attn.v_proj.weight",
        "blk.2.ffn_down.weight": "blocks.2.mlp.down_proj.weight",
        "blk.0.attn_norm.weight": "blocks.0.norm1.weight",
        "blk.0.ffn_up.bias": "blocks.0.mlp.up_proj.bias",
        "output.weight": "lm_head.weight",
    }.items():
        tensor = found[theirs_]
        packed = quantize(weights[ours], written.tensors[theirs_])
        known = gguf.quants.dequantize(packed.numpy(), tensor.tensor_type)
        np.testing.assert_array_equal(gguf.quants.dequantize(tensor.data, tensor.tensor_type), known)
    # Queries: rows of a head i, i + d/2 of Hugging Face's order lie side by side.
    q = gguf.quants.dequantize(found["blk.0.attn_q.weight"].data, found["blk.0.attn_q.weight"].tensor_type)
    stored = written.tensors["blk.0.attn_q.weight"]
    ours_q = dequantize(quantize(weights["blocks.0.attn.q_proj.weight"], stored), stored)
    np.testing.assert_array_equal(q[0:4], ours_q[[0, 32, 1, 33]].numpy())
    assert reader.fields["llama.rope.dimension_count"].contents() == 64
    assert reader.fields["general.architecture"].contents() == "llama"


@pytest.mark.row("QNT-12", reference="gguf")
@pytest.mark.parametrize(("name", "kind"), [("llama", "q8_0"), *((name, "q4_k") for name in SHAPES)])
def test_packed_layers_stay_packed_and_say_the_same_as_floats(name, kind, tmp_path):
    save_gguf(make(name), tmp_path / "m.gguf", kind)
    packed, floats = load_model(tmp_path / "m.gguf"), load_model(tmp_path / "m.gguf", dtype="float32")
    layers = [module for module in packed.modules() if isinstance(module, GGUFLinear)]
    plain = [module for module in floats.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == len(plain) - packed.config.tie_word_embeddings
    assert not any(isinstance(module, GGUFLinear) for module in floats.modules())
    torch.testing.assert_close(logits(packed, IDS), logits(floats, IDS))


def test_a_packed_model_is_saved_as_the_floats_it_stands_for(tmp_path):
    save_gguf(make("qwen2"), tmp_path / "m.gguf", "q4_k")
    packed = load_model(tmp_path / "m.gguf")
    packed.save_pretrained(tmp_path / "folder")
    torch.testing.assert_close(logits(load_model(tmp_path / "folder"), IDS), logits(packed, IDS))
    again = save_gguf(packed, tmp_path / "again.gguf", "f32")
    assert again.bits_per_weight == 32
    torch.testing.assert_close(logits(load_model(tmp_path / "again.gguf"), IDS), logits(packed, IDS))


def test_a_window_is_written_as_the_context(tmp_path):
    model = make("mistral")
    model.config = model.config.model_copy(update={"sliding_window": 32})
    save_gguf(model, tmp_path / "m.gguf", "f32")
    assert load_model(tmp_path / "m.gguf").config.max_position_embeddings == 32


REFUSED = {
    "llama-yarn": dict(
        SHAPES["llama"],
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32),
    ),
    "llama-gelu": dict(SHAPES["llama"], hidden_act="gelu"),
    "qwen2-windows": dict(SHAPES["qwen2"], use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "qwen3-biased": dict(SHAPES["qwen3"], attention_bias=True),
    "gemma2-scaled": dict(SHAPES["gemma2"], query_pre_attn_scalar=20),
    "gemma2-uncapped": dict(SHAPES["gemma2"], attn_logit_softcapping=None),
    "gpt2-relu": dict(SHAPES["gpt2"], activation_function="relu"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_computes_otherwise_is_refused(name):
    with pytest.raises(UsageError, match="has no place for"):
        architecture_of(config_from_hf(dict(REFUSED[name], vocab_size=64)))


@pytest.mark.parametrize("name", CASES)
def test_every_family_is_written_or_refused_by_name(name):
    reference = CASES[name]
    made = reference.cases[name]() if name in reference.cases else reference.own[name]()
    config = config_from_hf(made.to_dict()) if name in reference.cases else made
    if config.family() in BY_FAMILY:
        return
    with pytest.raises(UsageError, match=f"^{config.family()} models cannot be written as GGUF files"):
        architecture_of(config)


def test_other_types_and_adapters_are_refused(tmp_path):
    with pytest.raises(UsageError, match="`q8_1` is no type"):
        save_gguf(make("llama"), tmp_path / "m.gguf", "q8_1")
    assert not list(tmp_path.iterdir())


def changed(path, metadata=None, drop=(), **tensors):
    """The file with other metadata, without some tensors, or with others in their place."""
    with GGUFFile(path) as file:
        kept = {
            name: NewTensor(info.type, info.shape, lambda name=name: file.raw(name))
            for name, info in file.tensors.items()
            if name not in drop
        }
        values = {key: value for key, value in (file.metadata | (metadata or {})).items() if value is not None}
        write_gguf(path.with_name("changed.gguf"), values, kept | tensors)
    return path.with_name("changed.gguf")


ODD = NewTensor(TENSOR_TYPES["f32"], (5,), lambda: np.ones(5, "<f4"))
FAULTS = {
    "another kind": (dict(metadata={"general.architecture": "whisper"}), "kind 'whisper'"),
    "no kind": (dict(metadata={"general.architecture": None}), "kind None"),
    "no number of layers": (dict(metadata={"llama.block_count": None}), "llama.block_count"),
    "more layers than tensors": (dict(metadata={"llama.block_count": 4}), "missing"),
    "fewer layers than tensors": (dict(metadata={"llama.block_count": 2}), "no rule"),
    "layers as text": (dict(metadata={"llama.block_count": "3"}), "llama.block_count"),
    "other widths": (dict(metadata={"llama.feed_forward_length": 510}), "stored .* wanted"),
    "heads that do not divide": (dict(metadata={"llama.attention.head_count": 3}), "3"),
    "unknown stretching": (dict(metadata={"llama.rope.scaling.type": "yarn"}), "yarn"),
    "no embedding": (dict(drop=("token_embd.weight",)), "vocab_size"),
    "a tensor less": (dict(drop=("blk.1.ffn_up.weight",)), "blocks.1.mlp.up_proj.weight"),
    "a tensor more": ({"blk.0.odd.weight": ODD}, "blk.0.odd.weight"),
    "a shape that does not fit": ({"blk.0.attn_norm.weight": ODD}, "blocks.0.norm1.weight"),
    "more tokens than rows": (dict(metadata={"tokenizer.ggml.tokens": ["a"] * 65}), "do not belong together"),
}


@pytest.mark.row("QNT-12", reference="mismatched files")
@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_does_not_fit_together_is_refused(name, tmp_path):
    changes, message = FAULTS[name]
    save_gguf(make("llama"), tmp_path / "m.gguf", "q8_0")
    with pytest.raises((CheckpointError, UsageError), match=message):
        load_model(changed(tmp_path / "m.gguf", **changes))


# -- tokenizers -------------------------------------------------------------------------------------------------------

TEXTS = [*PROBES, *_EDGES, "Hello world 12345   \n\n x", "\u2581 \u2581x"]


def written_tokenizer(tokenizer, path, rows=None):
    from groundup.tokenizers.formats.gguf import to_metadata

    rows = rows or tokenizer.vocab_size
    write_gguf(path, {"general.architecture": "llama", **to_metadata(tokenizer, rows)}, {})
    return path


@pytest.mark.row("QNT-12", reference="token ids")
@pytest.mark.parametrize("name", ["gpt2-encoder.json", "gpt-neox-20b.json", "llama2.model"])
def test_a_tokenizer_there_and_back(name, shared, tmp_path):
    tokenizer = load_tokenizer(shared / "tokenizers" / name)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.chat_templates = {"tool_use": "{{ tools }}"}
    back = load_tokenizer(written_tokenizer(tokenizer, tmp_path / "t.gguf", tokenizer.vocab_size + 7))
    for text in TEXTS:
        for special in (False, True):
            ids = tokenizer.encode(text, allowed_special=special)
            assert back.encode(text, allowed_special=special) == ids, text
        assert back.decode(ids) == tokenizer.decode(ids)
    assert (back.vocab, back.vocab_size) == (tokenizer.vocab, tokenizer.vocab_size)
    assert back.special_tokens == tokenizer.special_tokens
    assert back.names == tokenizer.names
    assert (back.chat_template, back.chat_templates) == (tokenizer.chat_template, tokenizer.chat_templates)
    if tokenizer.bos_id is not None:
        assert back.encode("x", bos=True) == tokenizer.encode("x", bos=True)


@pytest.mark.row("QNT-12", reference="chat template")
def test_the_built_in_model_with_its_tokenizer_and_template(tmp_path):
    tokenizer = load_tokenizer("tiny")
    save_gguf(load_model("tiny"), tmp_path / "m.gguf", "q4_0", tokenizer)
    back = load_tokenizer(tmp_path / "m.gguf")
    assert back.chat_template == tokenizer.chat_template is not None
    assert back.special_tokens == tokenizer.special_tokens
    assert back.fingerprint() == tokenizer.fingerprint()
    assert all(back.encode(text) == tokenizer.encode(text) for text in TEXTS)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert reader.fields["tokenizer.ggml.tokens"].contents()[5] == tokenizer.token(5)


def test_tokenizers_that_llama_cpp_does_not_know_are_refused(tmp_path):
    from groundup.tokenizers.byte_bpe import ByteBPE
    from groundup.tokenizers.byte_symbols import BYTE_TO_SYMBOL
    from groundup.tokenizers.characters import Characters

    symbols = {symbol: byte for byte, symbol in BYTE_TO_SYMBOL.items()}
    with pytest.raises(UsageError, match="hold byte-level BPE"):
        written_tokenizer(Characters({"a": 0}), tmp_path / "t.gguf")
    with pytest.raises(UsageError, match="how this tokenizer cuts text"):
        written_tokenizer(ByteBPE(symbols | {"ab": 256}, [("a", "b")], pattern=r"\w+"), tmp_path / "t.gguf")
    with pytest.raises(CheckpointError, match="257 ids, the model only 200"):
        written_tokenizer(ByteBPE(symbols | {"ab": 256}, [("a", "b")]), tmp_path / "t.gguf", 200)


TOKENIZER_FAULTS = {
    "no tokenizer": ({"model": None}, "holds no tokenizer"),
    "another kind": ({"model": "bert"}, "'bert' tokenizer"),
    "unknown rule": ({"pre": "viking"}, "how it cuts text"),
    "no rule": ({"pre": None}, "how it cuts text"),
    "tokens as numbers": ({"tokens": [1, 2]}, "list of texts"),
    "types too few": ({"token_type": [1, 1]}, "2 entries"),
    "types unknown": ({"token_type": [9] * 257}, "holds 9"),
    "merges that are none": ({"merges": ["ab"]}, "'ab' is no merge"),
    "merges of others": ({"merges": ["ab qq"]}, "not in the vocabulary"),
    "BOS beyond the end": ({"bos_token_id": 257}, "bos_token_id is 257"),
    "a token twice": ({"tokens": ["a"] * 257}, "appears twice"),
}


@pytest.mark.row("QNT-12", reference="mismatched files")
@pytest.mark.parametrize("name", TOKENIZER_FAULTS)
def test_a_damaged_tokenizer_is_refused(name, tmp_path):
    from groundup.tokenizers.byte_bpe import ByteBPE
    from groundup.tokenizers.byte_symbols import BYTE_TO_SYMBOL
    from groundup.tokenizers.formats.gguf import to_metadata

    symbols = {symbol: byte for byte, symbol in BYTE_TO_SYMBOL.items()}
    values = to_metadata(ByteBPE(symbols | {"ab": 256}, [("a", "b")]), 257)
    changes, message = TOKENIZER_FAULTS[name]
    values |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    write_gguf(tmp_path / "t.gguf", {key: value for key, value in values.items() if value is not None}, {})
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path / "t.gguf")
