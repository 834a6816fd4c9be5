"""Attention parts inside models of other libraries: shared keys, bands, sources."""

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch.testing import assert_close

from groundup.layers.attention import Attention
from groundup.layers.attentions.cross import CrossAttention
from groundup.layers.attentions.sparse import alternating
from groundup.layers.context import Context
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.hub import build_model
from groundup.replace import replace

SHAPE = dict(vocab_size=48, hidden_size=32, num_attention_heads=4)


def shaken(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def gpt2(layers, make):
    config = GPT2Config(
        **SHAPE, num_hidden_layers=layers, max_position_embeddings=32, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0
    )
    model = build_model(config).eval()
    for i, block in model.blocks.items():
        replace(block, "attn", lambda _, i=int(i): make(i))
        block.attn.path = f"blocks.{i}.attn"
    return model


def load(ours, weights, names):
    """Fill ours: our name -> their name, with {i} for the layer."""
    layers = range(len(ours.blocks))
    full = {a.replace("{i}", str(i)): b.replace("{i}", str(i)) for a, b in names.items() for i in layers}
    ours.load_state_dict({a: weights[b] for a, b in full.items()})


def assert_models_agree(ours, theirs):
    """Logits, gradients, and prefill with steps."""
    x = torch.randint(0, 48, (2, 15), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(x).logits
        assert_close(ours(x), expected, atol=2e-5, rtol=1e-5)
        state = ours.make_state(2, 15)
        parts = [ours(x[:, :6], state=state)] + [ours(x[:, t : t + 1], state=state) for t in range(6, 15)]
        assert_close(torch.cat(parts, 1), expected, atol=2e-5, rtol=1e-5)
    for model in (ours, theirs):
        logits = model(x) if model is ours else model(x).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    return ours, theirs


@pytest.mark.row("LAY-27", reference="transformers")
def test_gpt_neos_alternation_of_dense_and_local_layers():
    torch.manual_seed(0)
    types = [[["global", "local"], 2]]
    config = tf.GPTNeoConfig(
        vocab_size=48,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        attention_types=types,
        window_size=4,
        max_position_embeddings=32,
        attention_dropout=0,
        embed_dropout=0,
        resid_dropout=0,
    )
    theirs = shaken(tf.GPTNeoForCausalLM(config))
    # GPT-Neo does not divide its scores
    ours = gpt2(4, lambda i: Attention(32, 4, bias=False, out_bias=True, scale=1.0, mask=alternating(i, window=4)))
    t, both = "transformer.h.{i}.", ("weight", "bias")
    names = {"embed.tokens.weight": "transformer.wte.weight", "embed.positions.weight": "transformer.wpe.weight"}
    names |= {"lm_head.weight": "lm_head.weight"}
    for kind in both:
        names |= {f"norm.{kind}": f"transformer.ln_f.{kind}"}
        names |= {f"blocks.{{i}}.norm{n}.{kind}": f"{t}ln_{n}.{kind}" for n in (1, 2)}
        names |= {f"blocks.{{i}}.attn.o_proj.{kind}": f"{t}attn.attention.out_proj.{kind}"}
        names |= {f"blocks.{{i}}.mlp.up_proj.{kind}": f"{t}mlp.c_fc.{kind}"}
        names |= {f"blocks.{{i}}.mlp.down_proj.{kind}": f"{t}mlp.c_proj.{kind}"}
    names |= {f"blocks.{{i}}.attn.{n}_proj.weight": f"{t}attn.attention.{n}_proj.weight" for n in "qkv"}
    load(ours, theirs.state_dict(), names)
    assert_models_agree(ours, theirs)
    for i in range(4):
        attn = theirs.transformer.h[i].attn.attention
        for n in "qkv":
            expected = getattr(attn, f"{n}_proj").weight.grad
            assert_close(getattr(ours.blocks[str(i)].attn, f"{n}_proj").weight.grad, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.row("LAY-23", reference="transformers")
def test_multi_query_attention_is_gpt_bigcodes():
    """StarCoder's kind (Shazeer 2019): one key-value head for all queries, in a GPT-2."""
    torch.manual_seed(0)
    config = tf.GPTBigCodeConfig(
        vocab_size=48,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=32,
        multi_query=True,
        attn_pdrop=0,
        embd_pdrop=0,
        resid_pdrop=0,
    )
    theirs = shaken(tf.GPTBigCodeForCausalLM(config))
    ours = gpt2(2, lambda i: Attention(32, 4, num_kv_heads=1, bias=True))
    weights, t = theirs.state_dict(), "transformer.h.{i}."
    names = {"embed.tokens.weight": "transformer.wte.weight", "embed.positions.weight": "transformer.wpe.weight"}
    names |= {"lm_head.weight": "lm_head.weight"}
    for kind in ("weight", "bias"):
        for i in range(2):  # theirs holds queries, the key and the value in one tensor
            parts = weights[f"transformer.h.{i}.attn.c_attn.{kind}"].split([32, 8, 8])
            weights |= {f"transformer.h.{i}.attn.{n}.{kind}": part for n, part in zip("qkv", parts, strict=True)}
        names |= {f"norm.{kind}": f"transformer.ln_f.{kind}"}
        names |= {f"blocks.{{i}}.norm{n}.{kind}": f"{t}ln_{n}.{kind}" for n in (1, 2)}
        names |= {f"blocks.{{i}}.attn.{n}_proj.{kind}": f"{t}attn.{n}.{kind}" for n in "qkv"}
        names |= {f"blocks.{{i}}.attn.o_proj.{kind}": f"{t}attn.c_proj.{kind}"}
        names |= {f"blocks.{{i}}.mlp.up_proj.{kind}": f"{t}mlp.c_fc.{kind}"}
        names |= {f"blocks.{{i}}.mlp.down_proj.{kind}": f"{t}mlp.c_proj.{kind}"}
    load(ours, weights, names)
    assert_models_agree(ours, theirs)
    for i in range(2):
        expected = theirs.transformer.h[i].attn.c_attn.weight.grad
        attn = ours.blocks[str(i)].attn
        found = torch.cat([getattr(attn, f"{n}_proj").weight.grad for n in "qkv"])
        assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.row("LAY-23", reference="published: Shazeer 2019, section 3, as einsums")
def test_multi_query_attention_is_the_papers_and_remembers_one_head():
    torch.manual_seed(0)
    attention, x = Attention(32, 4, num_kv_heads=1), torch.randn(2, 6, 32)
    q = torch.einsum("bnd,hkd->bhnk", x, attention.q_proj.weight.unflatten(0, (4, 8)))
    k, v = (
        torch.einsum("bmd,kd->bmk", x, attention.k_proj.weight),
        torch.einsum("bmd,vd->bmv", x, attention.v_proj.weight),
    )
    logits = torch.einsum("bhnk,bmk->bhnm", q, k) / 8**0.5
    weights = (logits + torch.full((6, 6), -torch.inf).triu(1)).softmax(-1)
    o = torch.einsum("bhnm,bmv->bhnv", weights, v)
    y = torch.einsum("bhnv,hdv->bnd", o, attention.o_proj.weight.unflatten(1, (4, 8)).transpose(0, 1))
    assert_close(attention(x, Context(torch.arange(6)[None])), y)
    one, four = (gpt2(2, lambda i, n=n: Attention(32, 4, num_kv_heads=n, bias=True)) for n in (1, 4))
    states = [model.make_state(2, 9) for model in (one, four)]
    for model, state in zip((one, four), states, strict=True):
        model(torch.zeros(2, 3, dtype=torch.int64), state=state)
    assert 4 * states[0].nbytes == states[1].nbytes


@pytest.mark.row("LAY-20", reference="transformers")
def test_cross_attention_is_barts():
    from transformers.models.bart.modeling_bart import BartAttention

    torch.manual_seed(0)
    config = tf.BartConfig(d_model=32, decoder_attention_heads=4)
    config._attn_implementation = "eager"
    theirs = shaken(BartAttention(32, 4, is_decoder=True, bias=True, config=config, layer_idx=0))
    ours = CrossAttention(32, 4, bias=True)
    ours.load_state_dict({name.replace("out_proj", "o_proj"): w for name, w in theirs.state_dict().items()})
    x, source, padding = torch.randn(2, 5, 32), torch.randn(2, 7, 32), torch.tensor([[1] * 7, [1] * 3 + [0] * 4])
    mask = torch.zeros(2, 1, 5, 7).masked_fill(padding[:, None, None] == 0, -torch.inf)
    expected = theirs(x, key_value_states=source, attention_mask=mask)[0]
    context = Context(torch.arange(5)[None], source=source, source_documents=padding)
    assert_close(ours(x, context), expected)
