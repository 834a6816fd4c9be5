"""Positions as biases of the scores, against transformers' BLOOM, Falcon and T5."""

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from groundup.layers.attention import Attention
from groundup.layers.context import Context, document_positions
from groundup.layers.masks import Bidirectional
from groundup.layers.position_bias import ALiBi, RoundedALiBi, T5Bias, alibi_slopes, t5_bucket

HEADS = [1, 2, 3, 4, 5, 6, 7, 8, 12, 14, 16, 20, 24, 32, 40, 71, 112]


def plain(length: int) -> Context:
    return Context(torch.arange(length)[None])


def padded(lengths: list[int], longest: int) -> Context:
    documents = torch.stack([(torch.arange(longest) >= longest - n).long() for n in lengths])
    return Context(document_positions(documents), documents)


@pytest.mark.row("LAY-40", reference="transformers: BLOOM")
@pytest.mark.parametrize("num_heads", HEADS)
def test_slopes_of_any_number_of_heads(num_heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 9), num_heads, torch.float32)  # (H, 1, S): m j, without the share of i
    ours = ALiBi(num_heads)(plain(9))[0]
    i = torch.arange(9)[:, None]
    lower = ours + torch.tensor(alibi_slopes(num_heads))[:, None, None] * i
    for t in range(9):
        assert_close(lower[:, t, : t + 1], theirs[:, 0, : t + 1])
    if num_heads == 8:  # Press et al. 2021, section 3
        assert alibi_slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
        assert ours[0].diagonal().tolist() == [0] * 9
        assert ours[1, 5].tolist() == [-5 / 4, -4 / 4, -3 / 4, -2 / 4, -1 / 4, 0, -1 / 4, -2 / 4, -3 / 4]


def split_heads(fused: torch.Tensor, num_heads: int) -> list[torch.Tensor]:
    """BLOOM and Falcon RW keep (head, query | key | value, d) in one tensor."""
    return [part.flatten(0, 1) for part in fused.unflatten(0, (num_heads, 3, -1)).unbind(1)]


@pytest.mark.row("LAY-40", reference="transformers: BLOOM, Falcon")
@pytest.mark.parametrize("num_heads", [4, 6])
@pytest.mark.parametrize("family", ["bloom", "falcon"])
def test_attention_of_bloom_and_falcon(family, num_heads):
    """The whole attention layer inside their model, with left padding; Falcon divides the bias by sqrt(d) as well."""
    torch.manual_seed(0)
    width = 8 * num_heads
    if family == "bloom":
        config = tf.BloomConfig(vocab_size=32, hidden_size=width, n_layer=1, n_head=num_heads)
        bias = ALiBi(num_heads)
    else:
        config = tf.FalconConfig(
            vocab_size=32, hidden_size=width, num_hidden_layers=1, num_attention_heads=num_heads, alibi=True,
            multi_query=False, new_decoder_architecture=False, parallel_attn=False, bias=True,
        )  # fmt: skip
        bias = RoundedALiBi(num_heads, scale=8**-0.5)
    model = tf.AutoModel.from_config(config).eval()
    block = model.h[0]
    theirs = block.self_attention
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    ours = Attention(width, num_heads, bias=True, position_bias=bias)
    for kind in ("weight", "bias"):
        parts = split_heads(getattr(theirs.query_key_value, kind).data, num_heads)
        for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
            getattr(getattr(ours, name), kind).data = part
    ours.o_proj.load_state_dict(theirs.dense.state_dict())

    seen = {}
    block.input_layernorm.register_forward_hook(lambda _, inputs, output: seen.update(x=output))
    theirs.register_forward_hook(lambda _, inputs, output: seen.update(y=output[0]))
    if family == "bloom":  # its layer adds the residual: taken off again
        block.input_layernorm.register_forward_hook(lambda _, inputs, output: seen.update(residual=inputs[0]))
    context = padded([10, 6, 3], 10)
    with torch.no_grad():
        model(torch.randint(0, 32, (3, 10)), attention_mask=context.documents)
        expected = seen["y"] - seen.get("residual", 0)
        found = ours(seen["x"], context)
    for row, n in enumerate([10, 6, 3]):
        assert_close(found[row, -n:], expected[row, -n:], atol=2e-5, rtol=1e-5)  # m j and m (j - i) round differently
    assert not torch.allclose(Attention.forward(_without(ours), seen["x"], context)[0], expected[0], atol=1e-3)


def _without(attention: Attention) -> Attention:
    attention.position_bias = None
    return attention


@pytest.mark.row("LAY-42", reference="transformers: T5")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (32, 64), (16, 40), (8, 20), (64, 1000)])
def test_buckets_of_t5(bidirectional, num_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-1500, 1501)
    expected = T5Attention._relative_position_bucket(-distance, bidirectional, num_buckets, max_distance)
    assert torch.equal(t5_bucket(distance, num_buckets, max_distance, bidirectional), expected)
    assert expected.unique().numel() == (num_buckets - 1 if bidirectional else num_buckets)  # 0 ahead does not occur


@pytest.mark.row("LAY-42", reference="transformers: T5")
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_attention_of_t5(part):
    """The first layer's self-attention of both stacks, values and gradients of the table."""
    torch.manual_seed(0)
    config = tf.T5Config(
        vocab_size=32, d_model=24, d_kv=6, num_heads=4, d_ff=8, num_layers=1, dropout_rate=0,
        relative_attention_num_buckets=8, relative_attention_max_distance=20,
    )  # fmt: skip
    theirs = getattr(tf.T5Model(config), part).block[0].layer[0].SelfAttention
    bias = T5Bias(4, 8, 20, bidirectional=part == "encoder")
    mask = {"mask": Bidirectional()} if part == "encoder" else {}
    ours = Attention(24, 4, head_dim=6, scale=1.0, position_bias=bias, **mask)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        for a, b in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("o_proj", "o")):
            getattr(ours, a).weight.copy_(getattr(theirs, b).weight)
        bias.weight.copy_(theirs.relative_attention_bias.weight)
    x = torch.randn(2, 30, 24)
    hidden = torch.full((30, 30), torch.finfo(torch.float32).min).triu(1)[None, None]
    expected = theirs(x, mask=None if part == "encoder" else hidden)[0]
    found = ours(x, plain(30))
    assert_close(found, expected, atol=2e-5, rtol=1e-5)  # scores of about 10 that are not divided by sqrt(d)
    for y in (found, expected):
        y.square().sum().backward()
    gradient = theirs.relative_attention_bias.weight.grad
    assert_close(bias.weight.grad, gradient, atol=1e-4 * gradient.abs().max().item(), rtol=1e-4)
    assert (bias.weight.grad.abs().sum(1) > 0).sum() >= 7
