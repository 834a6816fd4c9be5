"""Sinusoids and what they do inside a score, rotation in two dimensions, decay, GLM's pairs of positions, segments."""

import math

import pytest
import torch
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.blank_infilling import blank_infilling
from groundup.layers.context import Context
from groundup.layers.embedding import SegmentEmbedding, sentence_segments
from groundup.layers.masks import BlankInfilling
from groundup.layers.positions import SinusoidalEmbedding, score_terms, sinusoid
from groundup.layers.rope import PairRope, Rope, decay_bound, mean_score


def plain(length: int) -> Context:
    return Context(torch.arange(length)[None])


@pytest.mark.row("LAY-36", reference="transformers: Marian; hand calculation: Vaswani et al. 2017, section 3.5")
def test_sinusoids_both_orders():
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    positions = torch.arange(50)
    table = MarianSinusoidalPositionalEmbedding(50, 12)
    table.weight = torch.nn.Parameter(table.create_weight())
    assert_close(sinusoid(positions, 12, interleaved=False), table.weight.detach())
    waves = sinusoid(positions, 12)
    for p in (0, 1, 7, 49):
        for j in range(6):
            angle = p / 10_000 ** (2 * j / 12)
            assert waves[p, 2 * j].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert waves[p, 2 * j + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.row("LAY-36", reference="property: Vaswani et al. 2017, section 3.5")
def test_a_shift_is_one_linear_map_and_products_know_the_distance():
    """PE(p + 5) = M PE(p) with M of 2 x 2 rotations; PE(p) . PE(q) = sum of cos((p - q) f)."""
    waves = sinusoid(torch.arange(40), 8).double()
    frequencies = [10_000 ** (-2 * j / 8) for j in range(4)]
    turn = torch.block_diag(
        *[
            torch.tensor([[math.cos(5 * f), math.sin(5 * f)], [-math.sin(5 * f), math.cos(5 * f)]], dtype=torch.float64)
            for f in frequencies
        ]
    )
    assert_close(waves[:35] @ turn.T, waves[5:], atol=1e-5, rtol=0)
    expected = sum(math.cos(9 * f) for f in frequencies)
    for p in (0, 3, 30):
        assert (waves[p] @ waves[p + 9]).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.row("LAY-36", reference="hand calculation")
def test_the_embedding_scales_tokens_and_adds_the_position():
    embed = SinusoidalEmbedding(10, 16)
    out = embed(torch.tensor([[3, 3]]), Context(torch.tensor([[7, 2]])))
    assert_close(out[0], 4 * embed.weight[3] + sinusoid(torch.tensor([7, 2]), 16))
    vectors = torch.randn(1, 2, 16)
    unscaled = SinusoidalEmbedding(10, 16, scale=1.0, interleaved=False)(vectors, plain(2))
    assert_close(unscaled[0], vectors[0] + sinusoid(torch.arange(2), 16, interleaved=False))


@pytest.mark.row("LAY-36", reference="second way: the attention layer's own scores")
def test_four_terms_sum_to_the_score_of_attention():
    torch.manual_seed(0)
    layer, x, p = Attention(16, 2), torch.randn(2, 5, 16), sinusoid(torch.arange(5), 16)
    q, k = ((x + p) @ proj.weight.T for proj in (layer.q_proj, layer.k_proj))
    for h in range(2):
        rows = slice(8 * h, 8 * h + 8)
        terms = score_terms(x, p, layer.q_proj.weight[rows], layer.k_proj.weight[rows])
        assert_close(terms.total, q[..., rows] @ k[..., rows].mT)
        a = layer.q_proj.weight[rows].T @ layer.k_proj.weight[rows]
        for term, left, right in zip(terms, (x, x, p, p), (x, p, x, p), strict=True):
            expected = torch.stack([torch.stack([_pick(left, b) @ a @ _pick(right, b).T for b in range(2)])])[0]
            assert_close(term.expand(2, 5, 5), expected, atol=1e-5, rtol=1e-5)
    # what the words alone ask for does not move with the tokens' places; the other three do
    far = score_terms(x, sinusoid(torch.arange(100, 105), 16), layer.q_proj.weight[:8], layer.k_proj.weight[:8])
    near = score_terms(x, p, layer.q_proj.weight[:8], layer.k_proj.weight[:8])
    assert torch.equal(far.content_content, near.content_content)
    for name in ("content_position", "position_content", "position_position"):
        assert not torch.allclose(getattr(far, name), getattr(near, name))


def _pick(vectors, row):
    return vectors if vectors.ndim == 2 else vectors[row]


@pytest.mark.row("LAY-44", reference="second way: sums over j, Su et al. 2021, section 3.4.3")
def test_the_curve_of_decay():
    rope, distances = Rope(64), torch.arange(256)
    curve = decay_bound(rope, distances)
    for n in (0, 1, 17, 255):
        sizes = []
        for j in range(1, 33):
            sizes.append(abs(sum(complex(math.cos(n * f), math.sin(n * f)) for f in _frequencies(64)[:j])))
        assert curve[n].item() == pytest.approx(sum(sizes) / sum(range(1, 33)), rel=1e-5)
    assert curve[0] == 1
    assert curve[1:64].mean() > curve[64:128].mean() > curve[128:].mean()  # it falls over long distances
    assert (curve.diff() > 0).any()  # and not at every step
    assert_close(
        mean_score(rope, distances)[9].item(), sum(math.cos(9 * f) for f in _frequencies(64)) / 32, atol=1e-6, rtol=0
    )


def _frequencies(dim):
    return [10_000 ** (-2 * j / dim) for j in range(dim // 2)]


@pytest.mark.row("LAY-44", reference="property: the bound of summation by parts holds for any vectors")
def test_scores_stay_below_the_bound():
    """|sum h_j e^(i n f_j)| <= max |h_(j+1) - h_j| * sum |S_j|, with h_j = q_j k_j* and h beyond the last = 0."""
    torch.manual_seed(0)
    rope = Rope(32)
    bound = decay_bound(rope, torch.arange(300)) * sum(range(1, 17))
    for _ in range(20):
        q, k = torch.randn(2, 16, 2, dtype=torch.float64)
        h = torch.view_as_complex(q) * torch.view_as_complex(k).conj()
        steps = torch.cat((h, h.new_zeros(1))).diff().abs().max()
        angles = torch.arange(300)[:, None].double() * rope.frequencies().double()
        scores = (h * torch.polar(torch.ones_like(angles), angles)).sum(-1).abs()
        assert (scores <= steps * bound + 1e-9).all()


@pytest.mark.row("LAY-46", reference="published: Du et al. 2022, figure 2")
def test_blanks_as_in_the_papers_figure():
    """x1 .. x6 without (x3) and (x5 x6), told in the order (x5 x6), (x3). The paper counts places from 1."""
    mask, start, end = 90, 91, 92
    found = blank_infilling([1, 2, 3, 4, 5, 6], [(2, 3), (4, 6)], mask=mask, start=start, end=end, order=[1, 0])
    assert found.ids.tolist() == [1, 2, mask, 4, mask, start, 5, 6, start, 3]
    assert (found.positions[:, 0] + 1).tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 3, 3]
    assert found.positions[:, 1].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
    assert found.targets.tolist() == [-100] * 5 + [5, 6, end, 3, end]
    assert found.part_a == 5
    allowed = Context(found.positions[None]).mask(BlankInfilling()).allowed[0, 0].int().tolist()
    assert allowed == [[1] * 5 + [0] * 5] * 5 + [[1] * n + [0] * (10 - n) for n in (6, 7, 8, 9, 10)]


def test_blanks_refuse_spans_that_do_not_fit():
    settings = {"mask": 90, "start": 91, "end": 92}
    for spans in ([(2, 4), (3, 5)], [(0, 0)], [(4, 7)]):
        with pytest.raises(UsageError, match="overlaps another, is empty, or leaves"):
            blank_infilling(range(6), spans, **settings)
    with pytest.raises(UsageError, match="no permutation"):
        blank_infilling(range(6), [(2, 4)], **settings, order=[1])
    assert blank_infilling(range(6), [], **settings).ids.tolist() == [*range(6)]


@pytest.mark.row("LAY-46", reference="second way: complex numbers, as ChatGLM-6B's two halves")
def test_each_half_of_a_head_is_turned_by_its_own_position():
    torch.manual_seed(0)
    x, rope = torch.randn(1, 4, 3, 16), PairRope(16)
    positions = torch.tensor([[[0, 0], [4, 0], [4, 1], [4, 2]]])
    found = rope.rotate(x, rope.tables(positions, torch.float32))
    for t in range(4):
        for half in range(2):
            part = x[0, t, :, 8 * half : 8 * half + 8].double()
            angles = [positions[0, t, half].item() * 10_000 ** (-2 * j / 8) for j in range(4)]
            turned = torch.complex(part[:, :4], part[:, 4:]) * torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
            expected = torch.cat((turned.real, turned.imag), -1).float()
            assert_close(found[0, t, :, 8 * half : 8 * half + 8], expected)
    one = rope.tables(positions[..., 0], torch.float32)
    assert_close(one[0][..., 4:], torch.ones(1, 4, 1, 4))  # a plain position is outside blanks


@pytest.mark.row("LAY-46", reference="property: positions of a blank differ from those of the text")
def test_a_model_with_pairs_of_positions_steps_as_it_reads():
    from groundup.models.configs.llama import LlamaConfig
    from groundup.models.text.llama import Llama

    class Glm(Llama):
        def make_rope(self, i):
            return PairRope(self.head_dim)

        def make_mask(self, i):
            return BlankInfilling()

    torch.manual_seed(0)
    shape = dict(vocab_size=48, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = Glm.build(LlamaConfig(**shape, max_position_embeddings=32, initializer_range=0.2)).eval()
    blanks = blank_infilling([*range(1, 9)], [(2, 4), (6, 7)], mask=40, start=41, end=42)
    ids, positions, state = blanks.ids[None], blanks.positions[None], model.make_state(1, 20)
    with torch.no_grad():
        whole = model(ids, positions=positions)
        parts = [model(ids[:, : blanks.part_a], positions=positions[:, : blanks.part_a], state=state)]
        for t in range(blanks.part_a, ids.shape[1]):
            parts.append(model(ids[:, t : t + 1], positions=positions[:, t : t + 1], state=state))
        assert_close(torch.cat(parts, 1), whole)
        assert not torch.allclose(model(ids, positions=positions[..., :1].expand(-1, -1, 2)), whole, atol=1e-3)
        changed = ids.clone()
        changed[0, 5] = 9  # part A is read in both directions, and part B never changes it
        assert not torch.allclose(model(changed, positions=positions)[0, 0], whole[0, 0], atol=1e-4)
        changed = ids.clone()
        changed[0, -1] = 9
        assert_close(model(changed, positions=positions)[:, : blanks.part_a], whole[:, : blanks.part_a])


@pytest.mark.row("LAY-47", reference="transformers: BERT")
def test_segments_are_those_of_bert():
    import transformers as tf
    from transformers.models.bert.modeling_bert import BertEmbeddings

    torch.manual_seed(0)
    config = tf.BertConfig(vocab_size=40, hidden_size=12, num_attention_heads=2, max_position_embeddings=16)
    theirs, ours = BertEmbeddings(config).eval(), SegmentEmbedding(40, 12, 16)
    ours.tokens.load_state_dict(theirs.word_embeddings.state_dict())
    ours.positions.load_state_dict(theirs.position_embeddings.state_dict())
    ours.segments.load_state_dict(theirs.token_type_embeddings.state_dict())
    ids = torch.tensor([[1, 7, 8, 2, 9, 9, 2], [1, 7, 2, 5, 6, 2, 0]])  # 1 is [CLS], 2 is [SEP]
    segments = sentence_segments(ids, separator=2)
    assert segments.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    norm = theirs.LayerNorm
    expected = theirs(ids, token_type_ids=segments)
    assert_close(norm(ours(ids, Context(torch.arange(7)[None], segments=segments))), expected)
    assert_close(norm(ours(ids, plain(7))), theirs(ids))
    expected.square().sum().backward()
    norm.zero_grad()
    gradient = theirs.token_type_embeddings.weight.grad
    norm(ours(ids, Context(torch.arange(7)[None], segments=segments))).square().sum().backward()
    assert_close(ours.segments.weight.grad, gradient)


@pytest.mark.row("LAY-47", reference="hand calculation")
def test_segments_shift_a_token_by_the_same_vector_everywhere():
    embed = SegmentEmbedding(10, 4, 8, num_segments=3)
    out = embed(torch.tensor([[5, 5, 5]]), Context(torch.tensor([[2, 2, 2]]), segments=torch.tensor([[0, 1, 2]])))
    assert_close(out[0, 1] - out[0, 0], embed.segments.weight[1] - embed.segments.weight[0])
    assert_close(out[0, 2] - out[0, 0], embed.segments.weight[2] - embed.segments.weight[0])
