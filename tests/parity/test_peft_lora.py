"""LoRA held against peft: outputs, gradients, counts, merged weights, and files in both directions."""

import pytest
import torch

from families.tiny import ids, make_pair
from groundup.adapters import LoRAConfig, add_adapter, load_adapter, merged, remove_adapter, save_adapter
from groundup.base.files import read_json
from groundup.models.hub import load_model

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.row("PEFT-10", reference="peft"),
    pytest.mark.filterwarnings("ignore"),
]

CASES = ["llama", "gpt2", "phi3", "gpt-neox"]
"""As they are; one Conv1D for q, k and v; fused in rows; fused head by head."""
SETTINGS = {
    "lora": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "patterns": {"ranks": {"o_proj": 3, "blocks.0.*": 2}, "alphas": {"down_proj": 7.0}},
    "partly": {"targets": ["q_proj", "v_proj", "blocks.1.mlp.up_proj"]},
    "embedding": {"targets": ["tokens", "o_proj"]},
    "dora-embedding": {"targets": ["tokens"], "dora": True},
    "dora-partly": {"targets": ["v_proj"], "dora": True},
}


def away(parameters, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)  # sums of a fused matrix run in another order


@pytest.mark.parametrize(
    ("case", "setting"),
    [
        pytest.param(case, setting, marks=[] if case == "gpt2" or setting in ("lora", "dora") else pytest.mark.slow)
        for case in CASES
        for setting in SETTINGS
    ],
)
def test_files_go_both_ways(case, setting, tmp_path):
    both = make_pair(case, tmp_path)
    add_adapter(both.ours, LoRAConfig(rank=4, **SETTINGS[setting]))
    away(both.ours.adapters.parameters("default").values())
    want = both.ours(ids())
    save_adapter(both.ours, tmp_path / "ours")
    assert read_json(tmp_path / "ours" / "adapter_config.json")["base_model_name_or_path"] == str(tmp_path / "theirs")

    theirs = peft.PeftModel.from_pretrained(both.theirs, tmp_path / "ours").eval()
    close(theirs(ids()).logits, want)
    theirs.save_pretrained(tmp_path / "again")
    for folder in ("ours", "again"):
        remove_adapter(both.ours)
        load_adapter(both.ours, tmp_path / folder)
        close(both.ours(ids()), want)
    config = load_model(tmp_path / "ours").adapters.configs["default"]
    if "ranks" not in SETTINGS[setting]:
        assert config.rank == 4 or "dora" in setting  # blocks are taken apart again

    whole = theirs.merge_and_unload()
    ours = merged(both.ours)
    ours.save_pretrained(tmp_path / "merged")
    close(both.theirs.__class__.from_pretrained(tmp_path / "merged").eval()(ids()).logits, want)
    close(ours(ids()), want)
    if not (both.ours.config.tie_word_embeddings and "embedding" in setting):  # peft's head changes with the table then
        close(ours(ids()), whole(ids()).logits)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "pissa", "gaussian"])
def test_theirs_has_our_outputs_gradients_and_count(kind, tmp_path):
    both = make_pair("llama", tmp_path)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "down_proj"],
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights={"pissa": "pissa", "gaussian": "gaussian"}.get(kind, True),
    )
    init = kind if kind in ("pissa", "gaussian") else "kaiming"
    add_adapter(
        both.ours,
        LoRAConfig(
            rank=4, alpha=6, targets=["q_proj", "down_proj"], rslora=kind == "rslora", dora=kind == "dora", init=init
        ),
    )
    before = both.theirs(ids()).logits
    theirs = peft.get_peft_model(both.theirs, config)
    close(theirs(ids()).logits, before)
    close(both.ours(ids()), before)

    own = both.ours.adapters.parameters("default")
    learn = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in own.values()) == sum(p.numel() for p in learn.values())
    paired = [(own[name], learn[_theirs(name)]) for name in own]
    if kind == "pissa":  # singular vectors up to their sign: B A are equal
        for name in own:
            if "lora_A" in name:
                a, b = own[name], own[name.replace("lora_A", "lora_B")]
                at, bt = learn[_theirs(name)], learn[_theirs(name.replace("lora_A", "lora_B"))]
                torch.testing.assert_close(b @ a, bt @ at)
                torch.testing.assert_close(a.abs(), at.abs(), rtol=1e-4, atol=1e-5)
    for mine, other in paired:
        with torch.no_grad():
            mine.copy_(other)
    if kind == "pissa":  # theirs took s B A out of the base; ours holds it against the start
        for where, part in both.ours.adapters.plans["default"].parts.items():
            part.start_A.copy_(own[f"{where}.adapters.default.lora_A.weight"].detach())
            part.start_B.copy_(own[f"{where}.adapters.default.lora_B.weight"].detach())
    for seed, (mine, other) in enumerate(paired):
        away([mine], seed)
        away([other], seed)
    got, want = both.ours(ids()), theirs(ids()).logits
    close(got, want)
    got.logsumexp(-1).mean().backward()
    want.logsumexp(-1).mean().backward()
    for name, (mine, other) in zip(own, paired, strict=True):
        assert mine.grad.abs().sum() > 0, name
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-6)


def _theirs(name):
    """`blocks.0.attn.q_proj.adapters.default.lora_A.weight` as peft has it."""
    where, leaf = name.split(".adapters.default.")
    block, part = where.split(".", 2)[1:]
    part = part.replace("attn.", "self_attn.")
    leaf = {"lora_magnitude": "lora_magnitude_vector.default.weight"}.get(
        leaf, leaf.replace(".weight", ".default.weight")
    )
    return f"base_model.model.model.layers.{block}.{part}.{leaf}"


@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_peft_with_all_its_settings_is_read(case, tmp_path):
    both = make_pair(case, tmp_path)
    names = ["c_attn", "c_proj"] if case == "gpt2" else ["q_proj", "o_proj"]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=3,
        lora_alpha=5,
        target_modules=names,
        rank_pattern={"c_proj": 2, "o_proj": 2},
        alpha_pattern={"c_attn": 4, "q_proj": 4},
        layers_to_transform=[1],
        layers_pattern="h" if case == "gpt2" else "layers",
        bias="all" if case == "gpt2" else "none",
        modules_to_save=["ln_f"] if case == "gpt2" else ["lm_head"],
        lora_dropout=0.1,
    )
    theirs = peft.get_peft_model(both.theirs, config).eval()
    away(p for _, p in theirs.named_parameters() if p.requires_grad)
    theirs.save_pretrained(tmp_path / "peft")
    plain = both.ours(ids())
    load_adapter(both.ours, tmp_path / "peft", "theirs")
    close(both.ours(ids()), theirs(ids()).logits)
    save_adapter(both.ours, tmp_path / "ours", "theirs")
    back = peft.PeftModel.from_pretrained(make_pair(case, tmp_path / "new").theirs, tmp_path / "ours").eval()
    close(back(ids()).logits, both.ours(ids()))
    both.ours.adapters.activate()
    assert torch.equal(both.ours(ids()), plain)
    remove_adapter(both.ours, "theirs")
    assert torch.equal(both.ours(ids()), plain)
