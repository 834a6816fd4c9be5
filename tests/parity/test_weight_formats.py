"""Weights in other forms than Hugging Face folders, against the libraries that write and read them."""

import contextlib
import io
import json
import random
import struct
from collections import OrderedDict

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from tensorboardX.crc32c import crc32c
from torch.testing import assert_close

from groundup.base.errors import CheckpointError, UsageError
from groundup.cli import main
from groundup.models.formats.formats import open_weights
from groundup.models.formats.tensor_bundle import TensorBundle
from groundup.models.formats.torch_file import TorchFile
from groundup.models.formats.writing import write_weights
from groundup.models.hub import load_model

LLAMA = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
GPT2 = dict(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64)


def ids(rows=2, length=12):
    return torch.randint(1, 64, (rows, length), generator=torch.Generator().manual_seed(1))


def random_model(config, seed=0):
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def main_json(*words):
    """What a command line prints as JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*words, "--json"]) == 0
    return json.loads(out.getvalue())


def assert_same_logits(folder, theirs):
    with torch.no_grad():
        assert_close(load_model(folder)(ids()), theirs(ids()).logits)


# -- torch.save --------------------------------------------------------------------------------------------------------

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool, torch.complex64]
NEWER = [torch.uint16, torch.uint32, torch.float8_e4m3fn, torch.float8_e5m2]


def many_tensors(dtypes):
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    tensors = {str(dtype): (base * 10).abs().to(torch.uint8).to(dtype) for dtype in dtypes}
    tensors |= {"turned": base.t(), "part": base[2:5, 1:3], "repeated": base.reshape(-1)[::3], "whole": base}
    tensors |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5), "parameter": torch.nn.Parameter(base.clone())}
    return tensors


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.row("LM-51", reference="torch.save")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap", [dict, OrderedDict, lambda t: {"model": t, "step": 3, "betas": (0.9, 0.95)}, lambda t: {"state_dict": t}]
)
def test_files_of_torch_save_read_as_torch_load_reads_them(tmp_path, zipped, wrap):
    tensors = many_tensors(DTYPES + NEWER * zipped)
    torch.save(wrap(tensors), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with TorchFile(tmp_path / "x.pth") as weights:
        assert set(weights.names()) == set(tensors)
        for name, expected in tensors.items():
            found, meta = weights.get(name), weights.meta(name)
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
            assert (meta.shape, f"torch.{meta.dtype}") == (tuple(expected.shape), str(expected.dtype))
            assert meta.nbytes == expected.numel() * expected.element_size()
            assert torch.equal(bits(found), bits(expected)), name
        assert weights.nbytes == sum(t.numel() * t.element_size() for t in tensors.values())


def test_a_module_and_its_optimizer_in_one_file(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    with TorchFile(tmp_path / "x.pt") as weights:
        assert set(weights.names()) == set(module.state_dict())
        assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in weights.tensors())


def test_changing_a_tensor_leaves_the_file_alone(tmp_path):
    torch.save({"w": torch.zeros(8)}, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()
    with TorchFile(tmp_path / "x.pth") as weights:
        weights.get("w").add_(1)
    assert (tmp_path / "x.pth").read_bytes() == before
    assert torch.equal(torch.load(tmp_path / "x.pth", weights_only=True)["w"], torch.zeros(8))


@pytest.mark.row("LM-51", reference="transformers")
@pytest.mark.parametrize("config", [tf.GPT2Config(**GPT2), tf.LlamaConfig(**LLAMA, intermediate_size=48)])
@pytest.mark.parametrize("zipped", [True, False])
def test_hugging_face_folders_with_pickled_weights(tmp_path, config, zipped):
    theirs = random_model(config)
    config.save_pretrained(tmp_path)
    options = {"_use_new_zipfile_serialization": zipped}
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin", **options)
    assert_same_logits(tmp_path, theirs)
    state = list(theirs.state_dict().items())
    half = len(state) // 2
    shards = {"pytorch_model-00001-of-00002.bin": state[:half], "pytorch_model-00002-of-00002.bin": state[half:]}
    (tmp_path / "pytorch_model.bin").unlink()
    for name, part in shards.items():
        torch.save({key: value.clone() for key, value in part}, tmp_path / name, **options)
    index = {"metadata": {}, "weight_map": {key: name for name, part in shards.items() for key, _ in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_same_logits(tmp_path, theirs)
    load_model(tmp_path).save_pretrained(tmp_path / "again")
    assert_same_logits(tmp_path / "again", theirs)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match="lacks the file pytorch_model-00002"):
        load_model(tmp_path)


def test_a_single_file_with_a_config_beside_it(tmp_path):
    theirs = random_model(tf.GPT2Config(**GPT2))
    theirs.config.save_pretrained(tmp_path)
    torch.save({"model": theirs.state_dict()}, tmp_path / "model.pt")
    assert_same_logits(tmp_path / "model.pt", theirs)
    theirs.save_pretrained(tmp_path / "hf")
    assert_same_logits(tmp_path / "hf/model.safetensors", theirs)


# -- Meta's Llama ------------------------------------------------------------------------------------------------------

META_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "layers",
}
META_CUTS = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}


def meta_state(theirs):
    """The inverse of transformers' convert_llama_weights_to_hf.py, whose `permute` is
    w.view(n_heads, dim1 // n_heads // 2, 2, dim2).transpose(1, 2).reshape(dim1, dim2)."""
    heads = {"q_proj": theirs.config.num_attention_heads, "k_proj": theirs.config.num_key_value_heads}
    state = {}
    for name, tensor in theirs.state_dict().items():
        for part, count in heads.items():
            if part in name:
                rows, columns = tensor.shape
                halves = tensor.view(count, 2, rows // count // 2, columns)
                tensor = halves.transpose(1, 2).reshape(rows, columns)
        for old, new in META_NAMES.items():
            name = name.replace(old, new)
        state[name] = tensor.clone()
    return state


def write_meta(folder, theirs, params, ranks=1, embedding_cut=1):
    folder.mkdir()
    state = meta_state(theirs)
    (folder / "params.json").write_text(json.dumps(params))
    for rank in range(ranks):
        part = {}
        for name, tensor in state.items():
            leaf = name.split(".")[-2]
            cut = embedding_cut if leaf == "tok_embeddings" else META_CUTS.get(leaf)
            part[name] = tensor if cut is None else tensor.chunk(ranks, cut)[rank].clone()
        part["rope.freqs"] = torch.zeros(4)
        torch.save(part, folder / f"consolidated.{rank:02}.pth")
    return state


META_CASES = {
    "llama-1": (
        dict(intermediate_size=96, rms_norm_eps=1e-6),
        dict(multiple_of=32, norm_eps=1e-6, vocab_size=-1),
    ),
    "llama-2-grouped": (
        dict(intermediate_size=128, rms_norm_eps=1e-5, num_key_value_heads=2),
        dict(multiple_of=16, ffn_dim_multiplier=1.5, norm_eps=1e-5, n_kv_heads=2, vocab_size=-1),
    ),
    "llama-3": (
        dict(intermediate_size=112, rms_norm_eps=1e-5, num_key_value_heads=2, rope_parameters={"rope_theta": 500000.0}),
        dict(multiple_of=16, ffn_dim_multiplier=1.3, norm_eps=1e-5, n_kv_heads=2, rope_theta=500000.0, vocab_size=64),
    ),
    "llama-3.1": (
        dict(
            intermediate_size=112,
            rms_norm_eps=1e-5,
            num_key_value_heads=2,
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=500000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=8192,
            ),
        ),
        dict(multiple_of=16, ffn_dim_multiplier=1.3, norm_eps=1e-5, n_kv_heads=2, rope_theta=500000.0, vocab_size=64)
        | dict(use_scaled_rope=True),
    ),
}


@pytest.mark.row("LM-51", reference="transformers")
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", META_CASES)
def test_meta_llama_folders(tmp_path, case, ranks):
    hf, own = META_CASES[case]
    theirs = random_model(tf.LlamaConfig(**LLAMA, **hf))
    params = dict(dim=32, n_layers=2, n_heads=4) | own
    write_meta(tmp_path / "meta", theirs, params, ranks, embedding_cut=0 if case.startswith("llama-3") else 1)
    assert_same_logits(tmp_path / "meta", theirs)
    load_model(tmp_path / "meta").save_pretrained(tmp_path / "hf")
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, theirs(ids()).logits)


def test_meta_llama_without_a_head_of_its_own(tmp_path):
    hf, own = META_CASES["llama-3"]
    theirs = random_model(tf.LlamaConfig(**LLAMA, **hf, tie_word_embeddings=True))
    write_meta(tmp_path / "meta", theirs, dict(dim=32, n_layers=2, n_heads=4) | own)
    state = torch.load(tmp_path / "meta/consolidated.00.pth", weights_only=True)
    del state["output.weight"]
    torch.save(state, tmp_path / "meta/consolidated.00.pth")
    assert load_model(tmp_path / "meta").config.tie_word_embeddings
    assert_same_logits(tmp_path / "meta", theirs)


def meta_forward(state, x, heads, key_heads, eps, theta):
    """Llama as Meta's model.py computes it: rotary positions as complex numbers over neighbouring pairs of features."""

    def norm(h, weight):
        return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps) * weight

    def rotate(h):
        pairs = torch.view_as_complex(h.reshape(*h.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns[:, None]).flatten(-2)

    length, h = x.shape[1], state["tok_embeddings.weight"][x]
    width = h.shape[-1] // heads
    frequencies = theta ** -(torch.arange(0, width, 2).float() / width)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    turns = torch.polar(torch.ones_like(angles), angles)  # (T, d / 2)
    unseen = torch.full((length, length), float("-inf")).triu(1)
    for i in range(2):
        w = {name.removeprefix(f"layers.{i}."): t for name, t in state.items() if name.startswith(f"layers.{i}.")}
        a = norm(h, w["attention_norm.weight"])
        q, k, v = (
            (a @ w[f"attention.w{p}.weight"].T).unflatten(-1, (n, width))
            for p, n in (("q", heads), ("k", key_heads), ("v", key_heads))
        )
        q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(heads // key_heads, dim=2) for t in (k, v))
        scores = torch.einsum("bthd,bshd->bhts", q, k) / width**0.5 + unseen
        h = h + torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).flatten(2) @ w["attention.wo.weight"].T
        a = norm(h, w["ffn_norm.weight"])
        gate, up = (a @ w[f"feed_forward.{n}.weight"].T for n in ("w1", "w3"))
        h = h + (torch.nn.functional.silu(gate) * up) @ w["feed_forward.w2.weight"].T
    return norm(h, state["norm.weight"]) @ state["output.weight"].T


@pytest.mark.row("LM-51", reference="hand calculation: Meta's model.py, complex rotary positions")
def test_meta_llama_equals_meta_arithmetic(tmp_path):
    hf, own = META_CASES["llama-3"]
    theirs = random_model(tf.LlamaConfig(**LLAMA, **hf))
    state = write_meta(tmp_path / "meta", theirs, dict(dim=32, n_layers=2, n_heads=4) | own, ranks=2, embedding_cut=0)
    with torch.no_grad():
        expected = meta_forward(state, ids(), heads=4, key_heads=2, eps=1e-5, theta=500000.0)
        assert_close(load_model(tmp_path / "meta")(ids()), expected)


@pytest.mark.parametrize(
    ("params", "width"),
    [
        (dict(dim=4096, multiple_of=256), 11008),
        (dict(dim=5120, multiple_of=256), 13824),
        (dict(dim=6656, multiple_of=256), 17920),
        (dict(dim=8192, multiple_of=256), 22016),
        (dict(dim=8192, multiple_of=4096, ffn_dim_multiplier=1.3), 28672),
        (dict(dim=4096, multiple_of=1024, ffn_dim_multiplier=1.3), 14336),
    ],
)
def test_published_mlp_widths(tmp_path, params, width):
    from groundup.models.formats.meta_llama import mlp_width

    assert mlp_width(params, tmp_path) == width


def test_damaged_meta_folders_are_refused(tmp_path):
    hf, own = META_CASES["llama-1"]
    theirs = random_model(tf.LlamaConfig(**LLAMA, **hf))
    folder, params = tmp_path / "meta", dict(dim=32, n_layers=2, n_heads=4) | own

    def reason(**changes):
        (folder / "params.json").write_text(json.dumps(params | changes))
        with pytest.raises(CheckpointError) as error:
            load_model(folder)
        return str(error.value)

    write_meta(folder, theirs, params, ranks=2)
    assert "n_head" in reason(n_head=4)
    assert "Did you mean `n_heads`" in reason(n_head=4)
    assert "64 rows" in reason(vocab_size=100)
    assert "stored (96, 32), wanted (128, 32)" in reason(multiple_of=128)
    assert "`dim` is 1.09951e+12" in reason(dim=2**40)
    assert "`num_key_value_heads` is 1.09951e+12" in reason(n_kv_heads=2**40)
    assert "ffn_dim_multiplier" in reason(ffn_dim_multiplier="x")
    (folder / "consolidated.00.pth").unlink()
    assert "lacks some of its files: found consolidated.01.pth" in reason()


# -- OpenAI's GPT-2 ----------------------------------------------------------------------------------------------------


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, value):
    """A protocol buffer field: int as a varint, bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked(raw):
    crc = crc32c(raw)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_block(out, entries, restart_interval=16):
    """LevelDB's table_format.md: keys share prefixes, except at restart points. Returns the block's handle."""
    body, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart_interval == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    body += b"".join(struct.pack("<I", r) for r in restarts or [0]) + struct.pack("<I", max(len(restarts), 1))
    handle = varint(len(out)) + varint(len(body))
    out += body + b"\0" + masked(body + b"\0")
    return handle


def write_table(path, entries, block_entries=7):
    out, index = bytearray(), []
    for start in range(0, len(entries), block_entries):
        part = entries[start : start + block_entries]
        index.append((part[-1][0] + b"\0", write_block(out, part, restart_interval=3)))
    meta = write_block(out, [])
    footer = meta + write_block(out, index, restart_interval=1)
    path.write_bytes(bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))


TF_DTYPES = {"torch.float32": 1, "torch.float64": 2, "torch.int32": 3, "torch.int64": 9, "torch.bfloat16": 14}


def write_bundle(prefix, tensors):
    """tensor_bundle.proto: a header under the empty key, then one entry a tensor, in the order of the names."""
    data, entries = b"", [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        raw = bits(tensor).numpy().tobytes()
        shape = b"".join(field(2, field(1, size)) for size in tensor.shape)
        entry = field(1, TF_DTYPES[str(tensor.dtype)]) + field(2, shape)
        entry += (field(4, len(data)) if data else b"") + field(5, len(raw))
        entry += varint(6 << 3 | 5) + masked(raw)
        entries.append((name.encode(), entry))
        data += raw
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    write_table(prefix.with_name(prefix.name + ".index"), entries)


def openai_state(theirs):
    """Hugging Face's GPT-2 under OpenAI's names: the inverse of transformers' load_tf_weights_in_gpt2."""
    state = {}
    for name, tensor in theirs.transformer.state_dict().items():
        parts = name.split(".")
        if parts[0] == "h":
            parts[:2] = [f"h{parts[1]}"]
        if parts[-1] == "weight":
            matrix = parts[-2].startswith("c_")
            parts[-1] = "w" if matrix else "g"
            tensor = tensor[None] if matrix else tensor
        elif parts[-1] == "bias":
            parts[-1] = "b"
        if parts[0] in ("wte", "wpe"):
            parts = parts[:1]
        state["/".join(["model", *parts])] = tensor.clone()
    return state


def write_openai(folder, theirs):
    folder.mkdir()
    config = theirs.config
    hparams = dict(n_vocab=64, n_ctx=64, n_embd=config.n_embd, n_head=config.n_head, n_layer=config.n_layer)
    (folder / "hparams.json").write_text(json.dumps(hparams))
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/home/openai/models/model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    )
    write_bundle(folder / "model.ckpt", openai_state(theirs))


@pytest.mark.row("LM-51", reference="transformers")
def test_openai_tensorflow_checkpoints(tmp_path):
    theirs = random_model(tf.GPT2Config(**GPT2))
    write_openai(tmp_path / "124M", theirs)
    with open_weights(tmp_path / "124M") as weights:
        assert weights.meta("model/h0/attn/c_attn/w").shape == (1, 32, 96)
        for name, tensor in openai_state(theirs).items():
            assert torch.equal(weights.get(name), tensor), name
    assert_same_logits(tmp_path / "124M", theirs)
    assert_same_logits(tmp_path / "124M/model.ckpt.index", theirs)
    load_model(tmp_path / "124M").save_pretrained(tmp_path / "hf")
    assert_same_logits(tmp_path / "hf", theirs)


@pytest.mark.row("LM-51", reference="hand calculation")
def test_the_bundle_of_a_checkpoint_by_hand(tmp_path):
    """One int64 scalar `n` = 7: every byte of the index written out, as the format's description gives them."""
    header = bytes.fromhex("0801 1a02 0801".replace(" ", ""))  # one shard; version 1
    entry = bytes.fromhex("0809 1200 2808".replace(" ", ""))  # int64, shape (), 8 bytes; offset 0 is left out
    block = bytes([0, 0, len(header)]) + header + bytes([0, 1, len(entry)]) + b"n" + entry
    block += struct.pack("<II", 0, 1)
    meta = struct.pack("<II", 0, 1)
    out = block + b"\0" + masked(block + b"\0") + meta + b"\0" + masked(meta + b"\0")
    index = bytes([0, 1, 2]) + b"n" + bytes([0, len(block)]) + struct.pack("<II", 0, 1)
    footer = bytes([len(block) + 5, len(meta), len(out), len(index)]).ljust(40, b"\0")
    out += index + b"\0" + masked(index + b"\0") + footer + bytes.fromhex("57fb808b247547db")
    (tmp_path / "x.index").write_bytes(out)
    (tmp_path / "x.data-00000-of-00001").write_bytes(struct.pack("<q", 7))
    with TensorBundle(tmp_path / "x.index") as bundle:
        assert bundle.names() == ["n"]
        assert bundle.get("n").tolist() == 7


def test_bundles_of_all_sizes_and_dtypes(tmp_path):
    torch.manual_seed(0)
    tensors = {
        f"scope/{'deep/' * (i % 4)}v{i}": (torch.randn(torch.Size([i % 3 + 1] * (i % 4))) * 9).to(dtype)
        for i, dtype in enumerate([torch.float32, torch.float64, torch.int32, torch.int64, torch.bfloat16] * 8)
    } | {"empty": torch.empty(0, 3)}
    write_bundle(tmp_path / "x", tensors)
    with TensorBundle(tmp_path / "x.index") as bundle:
        assert set(bundle.names()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(bundle.get(name), tensor)
            assert bundle.get(name).dtype == tensor.dtype


def test_damaged_bundles_are_refused(tmp_path):
    theirs = random_model(tf.GPT2Config(**GPT2))
    folder = tmp_path / "124M"
    write_openai(folder, theirs)
    index, data = folder / "model.ckpt.index", folder / "model.ckpt.data-00000-of-00001"
    whole, numbers = index.read_bytes(), data.read_bytes()

    def reason():
        with pytest.raises(CheckpointError) as error:
            load_model(folder)
        return str(error.value)

    index.write_bytes(whole[:-1])
    assert "does not end as a TensorFlow index" in reason()
    index.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    assert "checksum" in reason()
    index.write_bytes(whole)
    data.write_bytes(numbers[:-4])
    assert "cut short" in reason()
    data.unlink()
    assert "lacks the file" in reason()
    data.write_bytes(numbers)
    hparams = json.loads((folder / "hparams.json").read_text())
    (folder / "hparams.json").write_text(json.dumps(hparams | {"n_layers": 3}))
    assert "Did you mean `n_layer`" in reason()
    (folder / "hparams.json").write_text(json.dumps(hparams | {"n_embd": 2**40}))
    assert "`n_embd` is 1.09951e+12" in reason()
    (folder / "hparams.json").write_text(json.dumps(hparams | {"n_layer": 2}))
    assert "no rule of this family knows 12 tensors: model/h2/" in reason()
    (folder / "hparams.json").write_text(json.dumps(hparams | {"n_embd": 16}))
    assert "model/h0/attn/c_attn/b (96,) does not give blocks.0.attn.q_proj.bias" in reason()
    (folder / "hparams.json").unlink()
    assert "hparams.json" in reason()


def test_randomly_damaged_bundles_raise_nothing_else(tmp_path, monkeypatch):
    """Checksums aside, so that the damage reaches every part of the reader."""
    monkeypatch.setattr("groundup.models.formats.tensor_bundle.masked_crc", lambda raw: 0)
    tensors = {f"scope/v{i}": torch.randn(i, 3) for i in range(8)}
    write_bundle(tmp_path / "x", tensors)
    index, generator, refused = tmp_path / "x.index", random.Random(0), 0
    whole = bytearray(index.read_bytes())
    for start, end in crc_places(whole):
        whole[start:end] = bytes(4)
    for _ in range(1000):
        raw = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2, 8))):
            raw[generator.randrange(len(raw))] = generator.randrange(256)
        if generator.random() < 0.1:
            del raw[: generator.randrange(len(raw))]
        index.write_bytes(raw)
        try:
            with TensorBundle(index) as bundle:
                assert all(bundle.get(name).nbytes <= 8 * 7 * 12 for name in bundle.names())
        except CheckpointError:
            refused += 1
    assert 0 < refused < 1000


def crc_places(raw):
    """Where the checksum of each block stands: behind the block's own bytes."""
    found, position = [], 0
    while position < len(raw) - 48:
        end = next(
            e for e in range(position + 4, len(raw) - 52) if masked(bytes(raw[position : e + 1])) == raw[e + 1 : e + 5]
        )
        found.append((end + 1, end + 5))
        position = end + 5
    return found


# -- RWKV --------------------------------------------------------------------------------------------------------------


def rwkv_state(version, layers=2, width=64, vocab=40, head=32, rank=8):
    """Random tensors under the names and shapes that RWKV-LM gives a model of `version` 4, 5 (5.2), 6 or 7."""
    line, heads, hidden = (1, 1, width), (width // head, head), (4 if version in (4, 7) else 3.5)
    square, tall = (width, width), (int(hidden * width), width)
    att = {f"{name}.weight": square for name in ("receptance", "key", "value", "output")}
    ffn = {"key.weight": tall, "value.weight": tall[::-1]}
    if version != 7:
        ffn |= {"receptance.weight": square}
    if version in (4, 5):
        att |= {f"time_mix_{name}": line for name in ("kvr" if version == 4 else "kvrg")}
        ffn |= {"time_mix_k": line, "time_mix_r": line}
    if version == 4:
        att |= {"time_decay": (width,), "time_first": (width,)}
    else:
        att |= {"ln_x.weight": (width,), "ln_x.bias": (width,)}
    if version in (5, 6):
        att |= {"gate.weight": square, "time_faaaa": heads, "time_decay": heads if version == 5 else line}
    if version == 6:
        att |= {f"time_maa_{name}": line for name in "xwkvrg"}
        att |= {"time_maa_w1": (width, 5 * 32), "time_maa_w2": (5, 32, width)}
        att |= {"time_decay_w1": (width, 64), "time_decay_w2": (64, width)}
        ffn |= {"time_maa_k": line, "time_maa_r": line}
    if version == 7:
        att |= {f"x_{name}": line for name in "rwkvag"} | {"k_k": line, "k_a": line, "r_k": heads}
        att |= {f"{name}0": line for name in "wav"}
        att |= {f"{name}1": (width, rank) for name in "wavg"} | {f"{name}2": (rank, width) for name in "wavg"}
        ffn |= {"x_k": line}
    shapes = {"emb.weight": (vocab, width), "head.weight": (vocab, width)}
    norms = ["blocks.0.ln0", "ln_out", *(f"blocks.{i}.ln{n}" for i in range(layers) for n in (1, 2))]
    shapes |= {f"{norm}.{leaf}": (width,) for norm in norms for leaf in ("weight", "bias")}
    for i in range(layers):
        first = version == 7 and i == 0  # the first layer of version 7 makes the values that later ones mix in
        shapes |= {f"blocks.{i}.att.{name}": s for name, s in att.items() if not (first and name in ("v0", "v1", "v2"))}
        shapes |= {f"blocks.{i}.ffn.{name}": s for name, s in ffn.items()}
    torch.manual_seed(version)
    return {name: (torch.randn(shape) * 0.3).bfloat16() for name, shape in shapes.items()}


def assert_same_tensors(path, expected):
    """Every tensor, read one at a time, with its dtype, shape and bits; and what the reader lists without reading."""
    with open_weights(path) as weights:
        assert set(weights.names()) == set(expected)
        for name in weights.names():
            found, meta = weights.get(name), weights.meta(name)
            assert (found.shape, found.dtype) == (expected[name].shape, expected[name].dtype), name
            assert (meta.shape, f"torch.{meta.dtype}") == (tuple(found.shape), str(found.dtype)), name
            assert torch.equal(bits(found), bits(expected[name])), name


RWKV_FILES = {4: "RWKV-4-Pile-tiny", 5: "RWKV-5-World-tiny-v2", 6: "RWKV-x060-World-tiny", 7: "RWKV-x070-World-tiny"}
rwkv_versions = pytest.mark.parametrize("version", RWKV_FILES)


@pytest.mark.row("LM-51", reference="torch.load")
@rwkv_versions
def test_rwkv_files_are_read_as_torch_load_reads_them(tmp_path, version):
    file = tmp_path / f"{RWKV_FILES[version]}.pth"
    torch.save(rwkv_state(version), file)
    expected = torch.load(file, weights_only=True)
    assert_same_tensors(tmp_path, expected)
    shown = main_json("models", "show", str(file), "--tensors")
    assert {row["name"]: tuple(row["shape"]) for row in shown["tensors"]} == {
        n: tuple(t.shape) for n, t in expected.items()
    }
    model = load_model(tmp_path)
    assert model.config.model_type == ("rwkv" if version == 4 else f"rwkv{version}")
    assert torch.equal(model.lm_head.weight, expected["head.weight"])


@pytest.mark.row("LM-51", reference="torch.load, safetensors")
@rwkv_versions
def test_rwkv_files_are_written_as_pth_and_as_safetensors(tmp_path, version):
    """.pth -> .pth, .pth -> safetensors (several shards) -> .pth: other libraries read each with the same bits."""
    expected, file = rwkv_state(version), tmp_path / "rwkv.pth"
    torch.save(expected, file)
    again, shards, back = tmp_path / "again.pth", tmp_path / "shards", tmp_path / "back.pth"
    main_json("export", "weights", str(file), str(again))
    main_json("export", "weights", str(file), str(shards), "--max-shard-size", "30KB")
    main_json("export", "weights", str(shards), str(back))
    for path in (again, back):
        found = torch.load(path, weights_only=True)
        assert set(found) == set(expected)
        assert all(torch.equal(bits(found[name]), bits(tensor)) for name, tensor in expected.items())
        assert path.stat().st_size < file.stat().st_size * 1.1
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) > 1
    found = {name: tensor for part in files for name, tensor in load_file(part).items()}
    assert set(found) == set(expected)
    assert all(torch.equal(bits(found[name]), bits(tensor)) for name, tensor in expected.items())
    assert_same_tensors(shards, expected)


@pytest.mark.row("LM-51", reference="rwkv")
@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5, 6])
def test_the_rwkv_library_runs_what_was_written(tmp_path, version, monkeypatch):
    """BlinkDL's own library takes names and shapes for a model of that version; the rewritten file gives its logits."""
    monkeypatch.setenv("RWKV_JIT_ON", "0")
    monkeypatch.setenv("RWKV_CUDA_ON", "0")
    rwkv = pytest.importorskip("rwkv.model")
    torch.save(rwkv_state(version), tmp_path / "theirs.pth")
    main_json("export", "weights", str(tmp_path / "theirs.pth"), str(tmp_path / "shards"))
    main_json("export", "weights", str(tmp_path / "shards"), str(tmp_path / "ours.pth"))
    logits = []
    for name in ("theirs", "ours"):
        model = rwkv.RWKV(model=str(tmp_path / name), strategy="cpu fp32", verbose=False)
        assert int(model.version) == version
        logits.append(model.forward([3, 1, 4, 1, 5], None)[0])
    assert logits[0].shape == (40,)
    assert logits[0].isfinite().all()
    assert logits[0].std() > 0
    assert torch.equal(*logits)


def test_parts_of_a_storage_are_written_alone(tmp_path):
    table = torch.randn(1000, 8)
    torch.save({"a": table[:2], "b": table.t(), "c": table, "d": table}, tmp_path / "x.pth")
    with open_weights(tmp_path / "x.pth") as weights:
        write_weights(weights, tmp_path / "y.pth")
        write_weights(weights, tmp_path / "y")
    for path in (tmp_path / "y.pth", tmp_path / "y"):
        assert_same_tensors(path, {"a": table[:2], "b": table.t(), "c": table, "d": table})
    with pytest.raises(UsageError, match="exists"), open_weights(tmp_path / "x.pth") as weights:
        write_weights(weights, tmp_path / "y.pth")
