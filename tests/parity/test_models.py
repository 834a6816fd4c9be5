"""Every family against transformers: tiny random checkpoints, through files on disk, in both directions."""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch.testing import assert_close

from groundup.estimates.params import count_parameters
from groundup.models.catalogue import config_from_hf, config_of_size, model_class, sizes
from groundup.models.hub import load_model

LLAMA = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
)
GROUPED = LLAMA | dict(num_key_value_heads=2)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=10_000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
GPT2 = dict(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)

CASES = {
    "gpt2": lambda: tf.GPT2Config(**GPT2),
    "gpt2-untied": lambda: tf.GPT2Config(**GPT2, tie_word_embeddings=False, n_inner=40),
    "llama": lambda: tf.LlamaConfig(**LLAMA),
    "llama-tied": lambda: tf.LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "llama-grouped": lambda: tf.LlamaConfig(**LLAMA, num_key_value_heads=2, head_dim=16),
    "llama-biased": lambda: tf.LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True),
    "llama-3.1": lambda: tf.LlamaConfig(**LLAMA, num_key_value_heads=2, rope_parameters=LLAMA3_ROPE),
    "llama-linear": lambda: tf.LlamaConfig(
        **LLAMA, rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0)
    ),
    "mistral": lambda: tf.MistralConfig(**GROUPED, sliding_window=5),
    "mistral-without-window": lambda: tf.MistralConfig(**GROUPED, sliding_window=None),
    "qwen3": lambda: tf.Qwen3Config(**GROUPED, head_dim=16),
    "qwen3-biased": lambda: tf.Qwen3Config(**GROUPED, attention_bias=True, tie_word_embeddings=True),
    "qwen3-window": lambda: tf.Qwen3Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "olmo2": lambda: tf.Olmo2Config(**LLAMA, pad_token_id=0),
    "olmo2-grouped": lambda: tf.Olmo2Config(**GROUPED, pad_token_id=0, attention_bias=True, tie_word_embeddings=True),
    "phi3": lambda: tf.Phi3Config(**LLAMA, pad_token_id=0),
    "phi3-grouped": lambda: tf.Phi3Config(**GROUPED, pad_token_id=0, sliding_window=5, tie_word_embeddings=True),
    "gemma": lambda: tf.GemmaConfig(**LLAMA | dict(num_key_value_heads=1), head_dim=16),
    "gemma-biased": lambda: tf.GemmaConfig(**GROUPED, head_dim=8, attention_bias=True),
    "qwen2": lambda: tf.Qwen2Config(**GROUPED),
    "qwen2-tied": lambda: tf.Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen2-window": lambda: tf.Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1),
}


# config.json in the spelling of each release. Written down from knowledge of the files, not fetched from the hub.
OLDER = {
    "mistral-7b-v0.1": """{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}""",
    "mistral-7b-v0.2": """{"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0", "use_cache": true, "vocab_size": 32000}""",
    "qwen2.5-7b": """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
        "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 152064}""",
    "olmo2-7b": """{"architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "olmo2",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 100277,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false,
        "torch_dtype": "float32", "transformers_version": "4.47.0.dev0", "use_cache": false, "vocab_size": 100352}""",
    "phi-3-mini-4k": """{"architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
        "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": true, "vocab_size": 32064}""",
    "gemma-2b": """{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "hidden_activation":
        "gelu_pytorch_tanh", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384,
        "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8, "num_hidden_layers": 18,
        "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.38.0.dev0", "use_cache": true,
        "vocab_size": 256000}""",
    "qwen3-8b": """{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 12288, "max_position_embeddings": 40960,
        "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}""",
}


@pytest.fixture(params=CASES)
def pair(request, tmp_path):
    """(theirs, ours, folder): the same weights in both libraries; ours were read from the files that theirs wrote."""
    torch.manual_seed(0)
    theirs = tf.AutoModelForCausalLM.from_config(CASES[request.param](), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms and biases leave their trivial start
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, load_model(tmp_path / "theirs"), tmp_path


def ids(rows=2, length=12, seed=1):
    return torch.randint(1, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.row("LM-10", reference="transformers")
@pytest.mark.row("LM-25", reference="transformers")
@pytest.mark.row("LM-26", reference="transformers")
@pytest.mark.row("LM-34", reference="transformers")
@pytest.mark.row("LAY-04", reference="transformers")
@pytest.mark.row("LAY-07", reference="transformers")
@pytest.mark.row("LAY-24", reference="transformers")
@pytest.mark.row("LAY-37", reference="transformers")
def test_logits_are_equal(pair):
    theirs, ours, _ = pair
    with torch.no_grad():
        assert_close(ours(ids()), theirs(ids()).logits)


@pytest.mark.row("LAY-48", reference="transformers")
def test_gradients_are_equal(pair):
    theirs, ours, _ = pair
    x = ids()
    F.cross_entropy(ours(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    F.cross_entropy(theirs(x).logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    mine = {name: p.grad for name, p in ours.named_parameters()}
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    renamed = dict(ours.weight_map(ours.config).save(mine, mine.__getitem__))
    assert set(renamed) == set(expected)
    for name, gradient in renamed.items():
        assert_close(gradient, expected[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.row("LAY-34", reference="transformers")
def test_prefill_in_chunks_then_steps_equal_one_pass(pair):
    theirs, ours, _ = pair
    x, state = ids(), ours.make_state(batch=2, max_len=12)
    with torch.no_grad():
        parts = [ours(x[:, :4], state=state), ours(x[:, 4:7], state=state)]
        parts += [ours(x[:, t : t + 1], state=state) for t in range(7, 12)]
        assert_close(torch.cat(parts, dim=1), theirs(x).logits)
    assert state.lengths.tolist() == [12, 12]


@pytest.mark.row("LAY-34", reference="transformers")
def test_left_padded_rows_equal_transformers_and_each_row_alone(pair):
    theirs, ours, _ = pair
    x, lengths = ids(rows=3), (12, 7, 3)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state = ours.make_state(3, 20)
    positions = (documents.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        plain, prefilled = ours(x, documents=documents), ours(x, documents=documents, state=state)
        expected = theirs(x, attention_mask=documents, position_ids=positions).logits
        step = ids(rows=3, length=1, seed=2)
        stepped = ours(step, state=state)
        for row, n in enumerate(lengths):
            assert_close(plain[row, -n:], expected[row, -n:])
            assert_close(prefilled[row, -n:], expected[row, -n:])
            alone = torch.cat((x[row : row + 1, -n:], step[row : row + 1]), dim=1)
            assert_close(ours(alone)[:, :n], plain[row : row + 1, -n:])
            assert_close(stepped[row], ours(alone)[0, -1:])
    assert state.lengths.tolist() == [13, 8, 4]


def test_left_padding_may_cover_whole_chunks_of_a_prefill(pair):
    _, ours, _ = pair
    x, lengths = ids(rows=2), (12, 2)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state = ours.make_state(2, 12)
    with torch.no_grad():
        parts = [ours(x[:, a : a + 4], documents=documents[:, a : a + 4], state=state) for a in (0, 4, 8)]
        for row, n in enumerate(lengths):
            assert_close(torch.cat(parts, 1)[row, -n:], ours(x[row : row + 1, -n:])[0])


@pytest.mark.row("DAT-03", reference="transformers")
def test_packed_documents_do_not_see_each_other(pair):
    theirs, ours, _ = pair
    x = ids(rows=1)
    documents = torch.tensor([[1] * 5 + [2] * 4 + [0] * 3])
    with torch.no_grad():
        packed = ours(x, documents=documents)
        assert_close(packed[:, :5], theirs(x[:, :5]).logits)
        assert_close(packed[:, 5:9], theirs(x[:, 5:9]).logits)


@pytest.mark.row("LM-51", reference="transformers")
def test_what_we_save_transformers_loads_with_equal_logits(pair):
    theirs, ours, folder = pair
    ours.save_pretrained(folder / "ours")
    again = tf.AutoModelForCausalLM.from_pretrained(folder / "ours", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, theirs(ids()).logits)
    assert type(again) is type(theirs)
    back = load_model(folder / "ours")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.row("LM-51", reference="transformers")
def test_sharded_checkpoints_go_both_ways(pair):
    from groundup.models.hub import save_model

    theirs, ours, folder = pair
    theirs.save_pretrained(folder / "sharded", max_shard_size="20KB")
    assert (folder / "sharded/model.safetensors.index.json").exists()
    again = load_model(folder / "sharded")
    save_model(ours, folder / "mine", max_shard_bytes=20_000)
    assert (folder / "mine/model.safetensors.index.json").exists()
    reloaded = tf.AutoModelForCausalLM.from_pretrained(folder / "mine", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(again(ids()), ours(ids()))
        assert torch.equal(reloaded(ids()).logits, theirs(ids()).logits)


def test_older_spellings_of_the_config_load_alike(pair):
    _, ours, folder = pair
    path = folder / "theirs/config.json"
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None)
    if rope is not None:
        config["rope_theta"] = rope.pop("rope_theta")
        if rope.get("rope_type") != "default":
            config["rope_scaling"] = rope
    path.write_text(json.dumps(config))
    with torch.no_grad():
        assert torch.equal(load_model(folder / "theirs")(ids()), ours(ids()))


@pytest.mark.parametrize("name", OLDER)
def test_released_configs_of_their_time(name):
    """config.json in the spelling of its time: transformers reads the same from it and from what we write."""
    values = json.loads(OLDER[name])
    ours, theirs = config_from_hf(values), tf.AutoConfig.for_model(**values)
    again = tf.AutoConfig.for_model(**ours.to_hf())
    nothing_computed = {"transformers_version", "dtype", "architectures", "_name_or_path"}
    for key in set(type(theirs)().to_dict()) - nothing_computed:
        assert getattr(again, key) == getattr(theirs, key), key
    assert config_from_hf(ours.to_hf()).to_hf() == ours.to_hf()
    unused = {"max_window_layers"}  # where there is no window
    assert {**ours.to_hf(), **config_of_size(name).model_dump(include=unused)} == {
        **ours.to_hf(),
        **config_of_size(name).to_hf(),
    }


@pytest.mark.parametrize("interleave", [False, True])
def test_state_select_trim_snapshot(pair, interleave):
    _, ours, _ = pair
    x, state = ids(rows=3), ours.make_state(3, 16, spare=2)
    with torch.no_grad():
        ours(x[:, :6], state=state)
        before = state.snapshot()
        ours(x[:, 6:9], state=state)
        state.trim(2)
        assert state.lengths.tolist() == [7, 7, 7]
        rows = torch.tensor([2, 0] if interleave else [0, 1, 1])
        snapshot_state = ours.make_state(3, 16, spare=2)
        ours(x[:, :6], state=snapshot_state)
        state.restore(before)
        state.select(rows)
        out = ours(x[rows, 6:8], state=state)
        assert_close(out, ours(x[rows, :8])[:, 6:])
    assert state.nbytes > 0


PUBLISHED = {
    # Radford et al. 2019 as 124M, 355M, 774M, 1.5B; exact counts of the released checkpoints
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    # Touvron et al. 2023, 6.7B, 13.0B, 32.5B, 65.2B, and Llama 2 34B (the shape that Code Llama 34B kept) and 70B
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-34b": 33_743_970_304,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    # later families: counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "olmo2-32b": 32_234_279_936,
    "phi-3-mini-4k": 3_821_079_552,
    "phi-3-medium-4k": 13_960_238_080,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-72b": 72_706_203_648,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
}


@pytest.mark.row("LM-10", reference="published: Radford et al. 2019; transformers")
@pytest.mark.row("LM-25", reference="published: Touvron et al. 2023, table 2")
@pytest.mark.row("LM-26", reference="published: Llama 2 model cards")
@pytest.mark.row("LM-34", reference="transformers")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_their_published_parameters(name):
    config = config_of_size(name)
    assert count_parameters(config) == PUBLISHED[name]
    with torch.device("meta"):
        assert model_class(config)(config).num_parameters() == PUBLISHED[name]
    hf = tf.AutoConfig.for_model(**(config.to_hf()))
    with torch.device("meta"):
        assert tf.AutoModelForCausalLM.from_config(hf).num_parameters() == PUBLISHED[name]


@pytest.mark.row("LM-10", reference="transformers")
def test_the_released_files_of_gpt2_load(tmp_path):
    """OpenAI's weights are not part of the tests; their file is: names without `transformer.`, causal masks among the
    tensors, no head, and a config.json of 2019. Two of the twelve layers, filled at random, in full width.
    """
    from safetensors.torch import save_file

    config = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 2,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
    }  # fmt: skip
    shapes = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768), "ln_f.weight": (768,), "ln_f.bias": (768,)}
    for i in range(2):
        for name, shape in {
            "ln_1.weight": (768,), "ln_1.bias": (768,), "ln_2.weight": (768,), "ln_2.bias": (768,),
            "attn.c_attn.weight": (768, 2304), "attn.c_attn.bias": (2304,),
            "attn.c_proj.weight": (768, 768), "attn.c_proj.bias": (768,),
            "mlp.c_fc.weight": (768, 3072), "mlp.c_fc.bias": (3072,),
            "mlp.c_proj.weight": (3072, 768), "mlp.c_proj.bias": (768,),
        }.items():  # fmt: skip
            shapes[f"h.{i}.{name}"] = shape
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1024, 1024).tril()[None, None] for i in range(2)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = load_model(tmp_path)
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(ours(ids()), theirs(ids()).logits)
    assert ours.num_parameters() == theirs.num_parameters() == 124_439_808 - 10 * 7_087_872


# Raschka 2024, chapter 4: an output head of its own, and no biases of queries, keys and values; then with a tied head
BOOK = {
    "gpt2": (163_009_536, 124_412_160),
    "gpt2-medium": (406_212_608, 354_749_440),
    "gpt2-large": (838_220_800, 773_891_840),
    "gpt2-xl": (1_637_792_000, 1_557_380_800),
}


@pytest.mark.row("LM-10", reference="published: Raschka 2024, chapter 4")
@pytest.mark.parametrize("name", BOOK)
def test_the_books_counts_with_an_untied_head(name):
    untied, tied = BOOK[name]
    config = config_of_size(name)
    biases = 3 * config.hidden_size * config.num_hidden_layers  # which the book's models lack
    with torch.device("meta"):
        own_head = model_class(config)(config.model_copy(update={"tie_word_embeddings": False}))
        shared = model_class(config)(config)
    assert own_head.num_parameters() - biases == untied
    assert shared.num_parameters() - biases == tied


@pytest.mark.row("LM-10", reference="transformers; published: Raschka 2024, chapter 6")
@pytest.mark.parametrize("name", BOOK)
def test_the_released_weights_of_gpt2(name, shared, capsys):
    """`models verify` on the real checkpoint: transformers' logits and text, and for 124M the published text."""
    from groundup.cli import main

    folder = shared / "models" / name
    if not (folder / "config.json").is_file():
        pytest.skip(f"the released weights of {name} are not at {folder} (a Hugging Face folder)")
    assert main(["models", "verify", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["published_size"] == name
    assert found["confirms"] == (["LM-10"] if name == "gpt2" else [])


def test_every_published_size_is_tested_or_equal_to_one_that_is():
    assert set(sizes()) - set(PUBLISHED) == {
        *("llama-2-7b", "llama-2-13b"),  # as llama-7b and llama-13b
        "mistral-7b-v0.2",  # as mistral-7b-v0.1
        *("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-72b"),  # as those of Qwen2
    }
