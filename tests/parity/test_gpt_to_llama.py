"""The ladder from GPT-2 to Llama 3: each rung changes one thing, and the last ones are Llama."""

import itertools

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.text.gpt2 import GPT2
from groundup.models.text.gpt_to_llama import (
    LADDER,
    Llama2Shaped,
    Llama3Shaped,
    WithRMSNorm,
    WithRotary,
    WithSwiGLU,
    as_llama,
)


def config(**changes):
    shape = dict(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=8, max_position_embeddings=32)
    return GPT2Config(**{**shape, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, **changes})


def built(cls, **changes):
    torch.manual_seed(0)
    model = cls.build(config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(length=12):
    return torch.randint(0, 64, (2, length), generator=torch.Generator().manual_seed(1))


def kinds(model):
    block = model.blocks["0"]
    return {
        "norm": type(block.norm1).__name__,
        "mlp": type(block.mlp).__name__,
        "rope": block.attn.rope is not None,
        "positions": hasattr(model.embed, "positions"),
        "bias": block.attn.q_proj.bias is not None,
        "kv": block.attn.k_proj.out_features,
    }


@pytest.mark.row("LM-53", reference="transformers")
def test_each_rung_changes_one_thing():
    rungs = [kinds(built(cls)) for cls in LADDER]
    changes = [{k for k in a if a[k] != b[k]} for a, b in itertools.pairwise(rungs)]
    assert changes == [{"norm"}, {"rope", "positions"}, {"mlp"}, {"bias"}, {"kv"}]


@pytest.mark.row("LM-53", reference="hand-worked counts")
def test_the_parameters_of_each_rung():
    d, layers, vocab, positions = 64, 2, 64, 32
    counts = [built(cls).num_parameters() for cls in LADDER]
    gpt2 = vocab * d + positions * d + layers * (12 * d * d + 13 * d) + 2 * d
    rms = gpt2 - (2 * layers + 1) * d
    rotary = rms - positions * d
    width = built(WithSwiGLU).width
    assert width == 192  # 2/3 of 256 is 170, rounded up to a multiple of 32
    swiglu = rotary + layers * (3 * d * width + 2 * width + d - (8 * d * d + 5 * d))
    plain = swiglu - layers * (4 * d + 2 * width + d)
    grouped = plain - layers * 2 * (d * d - d * d // 4)
    assert counts == [gpt2, rms, rotary, swiglu, plain, grouped]


@pytest.mark.row("LM-53", reference="transformers")
@pytest.mark.parametrize("cls", [Llama2Shaped, Llama3Shaped])
@pytest.mark.parametrize("tied", [True, False])
def test_the_last_rungs_are_llama(cls, tied, tmp_path):
    model = built(cls, tie_word_embeddings=tied)
    llama = as_llama(model)
    llama.save_pretrained(tmp_path)
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(llama(ids()), model(ids()))
        assert_close(theirs(ids()).logits, model(ids()))
    assert theirs.config.rope_parameters["rope_theta"] == cls.theta
    assert llama.num_parameters() == model.num_parameters()


@pytest.mark.row("LM-53", reference="one pass over the whole text")
@pytest.mark.parametrize("cls", LADDER)
def test_every_rung_runs_with_a_state_and_learns(cls):
    model, x = built(cls), ids()
    state = model.make_state(2, 12)
    with torch.no_grad():
        parts = [model(x[:, :5], state=state)] + [model(x[:, t : t + 1], state=state) for t in range(5, 12)]
        assert_close(torch.cat(parts, 1), model(x))
    model = cls.build(config()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_rungs_descend_from_each_other():
    assert (GPT2, WithRMSNorm, WithRotary, WithSwiGLU, Llama2Shaped, Llama3Shaped) == LADDER
    for lower, higher in itertools.pairwise(LADDER):
        assert issubclass(higher, lower)
