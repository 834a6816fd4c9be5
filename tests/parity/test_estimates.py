"""Estimates against built models of transformers, published counts, and measured memory."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from families import REFERENCES
from families.tiny import ids, make_ours
from groundup.cli import main
from groundup.estimates import flops, memory, params
from groundup.estimates.shape import GPT_LIKE, Shape
from groundup.models.catalogue import config_of_size, model_class
from groundup.training.optimizers.config import AdaFactorConfig, AdamWConfig, MuonConfig, SGDConfig

GPT2 = GPT2Config(
    vocab_size=97, n_embd=48, n_layer=3, n_head=4, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    activation_function="gelu_pytorch_tanh",
)  # fmt: skip
SMALL = dict(
    vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
LLAMA = LlamaConfig(**SMALL, head_dim=10)
LLAMA_TIED = LlamaConfig(**{**LLAMA.to_dict(), "tie_word_embeddings": True})
LLAMA_BIASED = LlamaConfig(**{**LLAMA.to_dict(), "attention_bias": True, "mlp_bias": True})
FAMILIES = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "llama-tied": LLAMA_TIED,
    "llama-biased": LLAMA_BIASED,
    "mistral": MistralConfig(**SMALL, head_dim=10),
    "olmo2": Olmo2Config(**SMALL),
    "phi3": Phi3Config(**SMALL, pad_token_id=0),
    "gemma": GemmaConfig(**SMALL, head_dim=10),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL, head_dim=10),
    "qwen3-biased": Qwen3Config(**SMALL, attention_bias=True),
}
CONFIGS = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)


def build(config, attention="eager"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)


@pytest.mark.row("LM-50", reference="transformers")
@CONFIGS
def test_parameters_and_sizes_equal_the_built_model(config):
    model = build(config)
    count = sum(p.numel() for p in model.parameters())
    assert params.count_parameters(config) == count
    assert params.count_parameters(config.to_dict()) == count
    assert params.model_bytes(config, "fp32") == sum(p.nbytes for p in model.parameters())
    assert params.model_bytes(config, "bf16") == sum(p.nbytes for p in model.to(torch.bfloat16).parameters())


@CONFIGS
def test_each_part_equals_the_modules(config):
    model, rows = build(config), {p.name: p for p in params.parts(config)}
    body = model.transformer if config.model_type == "gpt2" else model.model
    block = body.h[0] if config.model_type == "gpt2" else body.layers[0]
    attention = block.attn if config.model_type == "gpt2" else block.self_attn
    assert rows["attention"].each == sum(p.numel() for p in attention.parameters())
    assert rows["feed-forward"].each == sum(p.numel() for p in block.mlp.parameters())
    assert rows["token embedding"].total == model.get_input_embeddings().weight.numel()


@pytest.mark.row("LM-50", reference="published: Radford et al. 2019, Touvron et al. 2023")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama-7b", 6_738_415_616),
        ("llama-13b", 13_015_864_320),
        ("llama-33b", 32_528_943_616),
        ("llama-65b", 65_285_660_672),
        ("llama-2-70b", 68_976_648_192),
        ("llama-2-34b", 33_743_970_304),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
    ],
)
def test_known_counts(name, count):
    assert params.count_parameters(config_of_size(name)) == count


@pytest.mark.row("LM-50", reference="torch.utils.flop_counter")
@CONFIGS
def test_flops_equal_torchs_counter(config):
    """Forward and training, exactly; torch does not count the input gradient of the first layer's embedding."""
    model, ids = build(config), torch.randint(90, (2, 24))
    cost = flops.flops(config, seq_len=24, batch=2)
    with FlopCounterMode(display=False) as counter:
        loss = model(ids).logits.sum()
    forward = counter.get_total_flops()
    # transformers turns positions into rotary angles by a small matrix product, which is no part of the model's own.
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotary = 0 if config.model_type == "gpt2" else 2 * 24 * (width // 2)
    assert forward - cost.forward in {0, rotary, 2 * rotary}
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert counter.get_total_flops() == cost.backward


@CONFIGS
def test_frozen_weights_need_no_gradient_of_their_own(config):
    model = build(config).requires_grad_(False)
    vectors = torch.randn(2, 24, config.hidden_size, requires_grad=True)
    loss = model(inputs_embeds=vectors).logits.sum()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    cost = flops.flops(config, seq_len=24)
    frozen, full = (flops.training_flops_per_token(config, 24, learns) for learns in (0.0, 1.0))
    assert counter.get_total_flops() == 2 * (24 * frozen - cost.forward)
    assert full == cost.training / 24


def test_rules_of_thumb():
    gpt3 = {"model_type": "gpt2", "vocab_size": 50257, "hidden_size": 12288, "num_hidden_layers": 96}
    gpt3 |= {"num_attention_heads": 96, "max_position_embeddings": 2048}
    assert params.count_parameters(gpt3) == pytest.approx(174.6e9, rel=1e-3)
    assert flops.rule_6n(params.count_parameters(gpt3), 300e9) == pytest.approx(3.15e23, rel=0.01)
    assert flops.training_days(175e9, 300e9, devices=1024, peak_flops=312e12, mfu=0.45) == pytest.approx(25, abs=0.5)
    assert flops.utilisation(100.0, 5e9, 1e12) == 0.5
    # Per token 6 x (matrices) + attention is what the exact count is; 6 N + 12 L H Q T of PaLM stays within a percent.
    exact = flops.training_flops_per_token(config_of_size("gpt2-xl"), 1024)
    assert flops.palm_flops_per_token(config_of_size("gpt2-xl"), 1024) == pytest.approx(exact, rel=0.01)
    shape = Shape.of(config_of_size("gpt2"))
    scores = 12 * shape.layers * shape.heads * shape.head_dim * 1024
    assert flops.training_flops_per_token(shape, 1024) == 6 * params.matrix_parameters(shape) + scores


@pytest.mark.row("OPT-05", reference="measured optimizer state")
@pytest.mark.parametrize("config", [LLAMA, LLAMA_TIED], ids=["llama", "llama-tied"])
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("sgd", SGDConfig(momentum=0.0)),
        ("sgd-momentum", SGDConfig()),
        ("adamw", AdamWConfig()),
        ("adafactor", AdaFactorConfig()),
        ("muon", MuonConfig()),
    ],
)
def test_optimizer_state_estimate_equals_real_state(config, name, optimizer):
    measured = optimizer.build(build(config).named_parameters()).state_nbytes()
    assert 4 * memory.optimizer_numbers(config, name) == measured


def saved_bytes(config, batch, seq_len, attention="eager", recompute=False):
    """Bytes that autograd keeps for backward, without the parameters; each storage once."""
    model, ids = build(config, attention), torch.randint(90, (batch, seq_len))
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    parameters = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        logits = model(ids, use_cache=False).logits
    assert logits.requires_grad
    return sum(kept.values())


def per_block(config, **kwargs):
    longer = type(config)(**{**config.to_dict(), "num_hidden_layers": config.num_hidden_layers + 2})
    return (saved_bytes(longer, **kwargs) - saved_bytes(config, **kwargs)) / 2


@pytest.mark.row("QNT-02", reference="measured: torch.autograd.graph.saved_tensors_hooks")
@pytest.mark.parametrize(("config", "low", "high"), [(GPT2, 0.95, 1.1), (LLAMA, 0.95, 1.4)], ids=["gpt2", "llama"])
def test_activation_estimate_against_saved_tensors(config, low, high):
    estimate = memory.block_activations(config, batch=3, seq_len=32, dtype="fp32")
    measured = per_block(config, batch=3, seq_len=32)
    assert low < measured / estimate < high


@pytest.mark.row("QNT-02", reference="published: Korthikanti et al. 2022")
@pytest.mark.parametrize(("h", "a", "s", "b"), [(12288, 96, 2048, 1), (6144, 64, 2048, 4)])
def test_activation_formula_is_the_published_one(h, a, s, b):
    config = {"model_type": "gpt2", "vocab_size": 51200, "hidden_size": h, "num_hidden_layers": 2}
    config |= {"num_attention_heads": a}
    settings = {"batch": b, "seq_len": s, "dtype": "fp16", "dropout": True}
    assert memory.block_activations(config, **settings) == s * b * h * 34 + 5 * a * s * s * b
    assert memory.block_activations(config, recompute="selective", **settings) == s * b * h * 34
    assert memory.block_activations(config, recompute="full", **settings) == 2 * s * b * h


@pytest.mark.row("QNT-02", reference="measured tensors of a training step")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_training_estimate_equals_measured_weights_gradients_and_state(dtype):
    model = build(LLAMA).to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    optimizer = AdamWConfig(flat=False).build(model.named_parameters())
    model(torch.randint(90, (2, 16))).logits.float().logsumexp(-1).sum().backward()
    estimate = memory.training_memory(LLAMA, batch=2, seq_len=16, dtype=dtype)
    assert estimate.weights == sum(p.nbytes for p in model.parameters())
    assert estimate.gradients == sum(p.grad.nbytes for p in model.parameters())
    assert estimate.masters + estimate.optimizer == optimizer.state_nbytes()
    assert estimate.per_parameter_part == 16 * params.count_parameters(LLAMA)


@pytest.mark.row("QNT-02", reference="transformers.DynamicCache")
@pytest.mark.row("INF-15", reference="transformers.DynamicCache")
@CONFIGS
def test_kv_cache_equals_the_real_cache(config):
    cache = DynamicCache()
    build(config)(torch.randint(90, (3, 17)), past_key_values=cache, use_cache=True)
    measured = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    estimate = memory.inference_memory(config, batch=3, seq_len=17, dtype="fp32")
    assert (estimate.kv_cache, estimate.weights) == (measured, params.model_bytes(config, "fp32"))


@pytest.mark.row("INF-15", reference="published: worked examples of GQA, sliding windows, MoE; DeepSeek-V2 table 1")
def test_published_cache_sizes():
    size = {"layers": 32, "head_dim": 128, "seq_len": 32768}
    window = {"window": 1024, "local_per_global": 5}
    assert memory.kv_cache_bytes(kv_heads=32, **size) / 1e9 == pytest.approx(17.18, abs=0.005)
    assert memory.kv_cache_bytes(kv_heads=8, **size) / 1e9 == pytest.approx(4.29, abs=0.005)
    assert memory.window_cache_bytes(kv_heads=32, **size, **window) / 1e9 == pytest.approx(3.14, abs=0.005)
    assert memory.window_cache_bytes(kv_heads=8, **size, **window) / 1e9 == pytest.approx(0.78, abs=0.005)
    # DeepSeek-V2: 60 layers, latent 512 and rotary key 64: 34.6K numbers a token
    mla = memory.latent_cache_bytes(layers=60, latent_dim=512, rope_dim=64, seq_len=1, dtype="bf16") // 2
    assert mla / 1e3 == pytest.approx(34.6, abs=0.05)
    # 8 experts that share the width of a dense 7168 x 14336 layer, 2 active: 308M parameters, 77M active
    everything, active = params.moe_parameters(hidden=7168, intermediate=14336 // 8, experts=8, active=2)
    assert (round(everything / 1e6), round(active / 1e6)) == (308, 77)


def test_zero_stages_as_published():
    """Rajbhandari et al. (2020, figure 1): 7.5B parameters on 64 ranks."""
    sizes = [memory.zero_memory(7.5e9, 64, stage) / 1e9 for stage in range(4)]
    assert sizes == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)


def run_json(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.row("LM-50", reference="transformers")
def test_commands_report_any_config(capsys, tmp_path):
    LLAMA.save_pretrained(tmp_path)
    shown = run_json(capsys, "estimate", "params", str(tmp_path))
    assert shown["total"] == build(LLAMA).num_parameters() == sum(p["total"] for p in shown["parts"])
    cost = run_json(capsys, "estimate", "flops", str(tmp_path / "config.json"), "--seq-len", "24", "--batch", "2")
    assert cost["training"] == flops.flops(LLAMA, 24, 2).training
    known = run_json(capsys, "estimate", "memory", "gpt2", "--task", "inference", "--dtype", "fp32")
    assert known["total"] == 4 * 124_439_808 + 2 * 12 * 1024 * 768 * 4
    training = run_json(capsys, "estimate", "memory", "gpt2", "--recompute", "full")
    expected = dataclasses.asdict(memory.training_memory(config_of_size("gpt2"), recompute="full"))
    assert {key: training[key] for key in expected} == expected


def test_commands_for_people_and_their_errors(capsys, tmp_path):
    assert main(["estimate", "params", "gpt2"]) == 0
    assert "124,439,808" in capsys.readouterr().out
    assert main(["estimate", "params", "gpt-2"]) == 2
    assert "Did you mean `gpt2`" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    assert main(["estimate", "params", str(tmp_path)]) == 2
    assert "not valid JSON" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert main(["estimate", "flops", str(tmp_path)]) == 2
    assert "not `t5`" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "big"}')
    assert main(["estimate", "memory", str(tmp_path)]) == 2
    assert "`hidden_size` must be a whole number" in capsys.readouterr().err
    assert main(["estimate", "memory", "gpt2", "--dtype", "int4"]) == 2


def assert_parameters_and_matrices(model):
    """Told by a config of ours and by its config.json, as the model has them."""
    assert params.count_parameters(model.config) == model.num_parameters()
    assert params.count_parameters(model.config.to_hf()) == model.num_parameters()
    counted = [(a, b) for a, b, copies, _ in memory.matrix_shapes(model.config) for _ in range(copies)]
    assert sorted(counted) == sorted(tuple(p.shape) for p in model.parameters() if p.ndim == 2)


def operations(model):
    """Of one pass over `ids()` as torch counts them, attention by plain products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(ids())
    return counter.get_total_flops()


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [name for kind in (*GPT_LIKE, "openelm") for name in (*REFERENCES[kind].cases, *REFERENCES[kind].own)]
)
def test_families_told_from_gpt2_and_those_of_uneven_layers(name, tmp_path):
    """Parameters, matrices and operations of each family's tiny models."""
    model = make_ours(name, tmp_path)
    assert_parameters_and_matrices(model)
    # PanGu's last queries are of positions: projected once for both rows
    shared = 2 * 12 * model.config.hidden_size**2 if name.startswith("gpt_pangu") else 0
    assert flops.flops(model.config, seq_len=12, batch=2).forward == operations(model) + shared
    heads = [int(linear.weight.numel()) for linear in model.modules() if isinstance(linear, nn.Linear)]
    assert params.matrix_parameters(model.config) == sum(heads)


@torch.no_grad()
def test_layers_of_different_widths_keep_different_numbers_of_keys(tmp_path):
    model = make_ours("openelm", tmp_path)
    state = model.make_state(batch=2, max_len=12)
    model(ids(), state=state)
    kept = sum(layer.k[:, :, :12].nbytes + layer.v[:, :, :12].nbytes for layer in state.layers.values())
    assert memory.inference_memory(model.config, batch=2, seq_len=12, dtype="fp32").kv_cache == kept
    settings = {"batch": 1, "seq_len": 8, "dtype": "fp32", "recompute": "selective"}
    blocks = [
        8 * 4 * (4 * 32 + 2 * 8 * (q + k) + 4 * inner + 8 * (q + k))
        for q, k, inner in ((2, 1, 16), (4, 2, 72), (4, 2, 128))
    ]
    assert memory.block_activations(model.config, **settings) == max(blocks)
    ends = 8 * (2 * 32 * 4 + 64 * 4)
    assert memory.activation_memory(model.config, **settings) == sum(blocks) + ends


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [name for kind in ("olmo3", "cohere2", "gemma4_text") for name in REFERENCES[kind].cases]
)
def test_families_with_windows(name, tmp_path):
    """Parameters, operations and cached bytes of each family's tiny models, whose layers may differ in their heads."""
    model = make_ours(name, tmp_path)
    assert_parameters_and_matrices(model)
    experts = getattr(model.config, "top_k_experts", None) or 0
    weighing = 2 * 24 * model.config.hidden_size * experts * mixtures(model)
    assert flops.flops(model.config, seq_len=12, batch=2).forward == operations(model) - weighing
    state = model.make_state(batch=2, max_len=4)  # no longer than a window: every layer keeps all
    model(ids(length=4), state=state)
    estimate = memory.inference_memory(model.config, batch=2, seq_len=4, dtype="fp32")
    assert estimate.kv_cache == state.nbytes * 4 // 5  # one place more takes the padding


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.9),  # Jiang et al. 2024
        ("mixtral-8x22b", 39),
        ("qwen1.5-moe-a2.7b", 2.7),
        ("qwen2-57b-a14b", 14),
        ("qwen3-30b-a3b", 3.3),
        ("qwen3-235b-a22b", 22),
        ("deepseek-v2", 21),
        ("gemma-4-26b-a4b-text", 3.8),
        ("deepseek-v3", 37),
        ("glam-64b-64e", 96.6),
        ("qwen3.5-122b-a10b", 10),
        ("qwen3.5-397b-a17b", 17),
    ],
)
def test_active_parameters_are_the_published_ones(name, billions):
    config = config_of_size(name)
    active = params.active_parameters(config)
    assert active / 1e9 == pytest.approx(billions, rel=0.03)
    with torch.device("meta"):
        model = model_class(config)(config)
    chosen = getattr(config, "num_experts_per_tok", None) or config.top_k_experts
    idle = sum(p.numel() * (1 - chosen / len(p)) for n, p in model.named_parameters() if ".experts." in n)
    assert active == model.num_parameters() - round(idle)


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe-mixed", "deepseek-v3", "deepseek-v2-plain-queries", "gpt-oss"])
def test_mixtures_and_latents_have_the_flops_that_torch_counts(name, tmp_path):
    """torch counts products, the grouped one as 2 M F D."""
    from families.tiny import make_ours

    model = make_ours(name, tmp_path)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.ones(1, 8, dtype=torch.int64))
    # a sink is one more key and value: 8 queries of 4 heads in 3 layers
    sinks = 3 * 4 * 8 * 2 * 2 * model.config.head_dim if name == "gpt-oss" else 0
    weighing = 2 * 8 * model.config.hidden_size * model.config.num_experts_per_tok * mixtures(model)
    gates = 2 * 8 * model.config.hidden_size * mixtures(model) if name.startswith("qwen2") else 0
    assert flops.flops(model.config, 8).forward == counter.get_total_flops() - sinks - weighing - gates


def mixtures(model):
    return sum(hasattr(block.mlp, "experts") for block in model.blocks.values())
