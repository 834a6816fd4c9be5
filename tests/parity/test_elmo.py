"""ELMo against torch.nn's LSTM with projections, convolutions written out, and the published counts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.char_cnn import BEGIN, END, PAD, CharacterCNN, Highway, spelt
from groundup.layers.context import Context
from groundup.layers.recurrent import ProjectedLSTM, Recurrent
from groundup.models.catalogue import config_of_size, model_class
from groundup.models.configs.elmo import ElmoConfig
from groundup.models.hub import build_model, load_model
from groundup.models.text.elmo import ScalarMix
from groundup.training.objectives.bidirectional import BidirectionalLanguageModeling, labels_before
from groundup.training.objectives.config import BidirectionalConfig

V, D, C, L = 17, 6, 10, 2
SMALL = {
    "vocab_size": V,
    "hidden_size": D,
    "cell_size": C,
    "num_hidden_layers": L,
    "filters": [(1, 3), (2, 4), (3, 5)],
    "char_dim": 4,
}
WORDS = ["", "a", "the", "cat", "cats", "Ärger", "x" * 80, "dog", "dogs", ".", "é", "on", "in", "it", "sat", "mat", "s"]


def elmo(**changes):
    torch.manual_seed(0)
    model = build_model(ElmoConfig(**SMALL | changes)).eval()
    if model.config.characters:
        model.embed.spell(WORDS)
    return model


def ids(rows=2, length=9, seed=1):
    return torch.randint(1, V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "loop"])
def test_a_projected_lstm_equals_torchs(fused):
    torch.manual_seed(0)
    theirs = nn.LSTM(5, C, proj_size=D, batch_first=True)
    ours = Recurrent(ProjectedLSTM(5, C, D), fused=fused)
    names = {"input_proj.weight": "weight_ih", "state_proj.weight": "weight_hh", "out_proj.weight": "weight_hr"}
    names |= {"input_proj.bias": "bias_ih", "state_proj.bias": "bias_hh"}
    ours.cell.load_state_dict({o: theirs.get_parameter(f"{n}_l0").detach() for o, n in names.items()})
    x = torch.randn(2, 7, 5)
    y, expected = ours(x, Context(torch.arange(7)[None])), theirs(x)[0]
    assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for name, other in names.items():
        assert_close(ours.cell.get_parameter(name).grad, theirs.get_parameter(f"{other}_l0").grad)


def test_clipping_bounds_cell_and_output():
    """Against the formulas in numpy, with weights large enough that both clips act."""
    torch.manual_seed(0)
    layer = Recurrent(ProjectedLSTM(5, C, D, clip=0.5, input_bias=False))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(4)
    x = torch.randn(1, 6, 5)
    w, u, b, p = (
        layer.cell.get_parameter(name).detach().double().numpy()
        for name in ("input_proj.weight", "state_proj.weight", "state_proj.bias", "out_proj.weight")
    )
    h, c, rows = np.zeros(D), np.zeros(C), []
    for v in x[0].double().numpy():
        i, f, g, o = np.split(w @ v + u @ h + b, 4)
        sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
        c = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -0.5, 0.5)
        h = np.clip(p @ (sigmoid(o) * np.tanh(c)), -0.5, 0.5)
        rows.append(h)
    y = layer(x, Context(torch.arange(6)[None]))
    assert_close(y[0], torch.tensor(np.array(rows)).float())
    assert (y.abs() == 0.5).any()


@pytest.mark.row("LM-06", reference="convolutions written out")
def test_character_vectors_equal_the_convolutions_written_out():
    torch.manual_seed(0)
    cnn = CharacterCNN(V, D, [(1, 3), (2, 4), (3, 5)], char_dim=4, highways=2, longest=12)
    cnn.spell(WORDS)
    table = cnn.characters.weight.detach()

    def one(word):
        rows = table[spelt(word, 12)]  # (12, 4)
        found = []
        for convolution in cnn.convolutions:
            w, b = convolution.weight.detach(), convolution.bias.detach()  # (F, 4, width)
            width = w.shape[-1]
            for k in range(len(w)):
                places = [(w[k] * rows[j : j + width].T).sum() + b[k] for j in range(12 - width + 1)]
                found.append(max(places).clamp(min=0))
        x = torch.stack(found)
        for highway in cnn.highways:
            gate = torch.sigmoid(highway.gate(x))
            x = gate * F.relu(highway.change(x)) + (1 - gate) * x
        return cnn.proj(x)

    x = torch.arange(V)[None]
    assert_close(cnn(x, None)[0], torch.stack([one(word) for word in WORDS]))
    assert_close(cnn(torch.tensor([[3, 3, 1]]), None)[0, :2], cnn(torch.tensor([[3]]), None)[0].expand(2, -1))
    vectors = torch.randn(1, 2, D)
    assert torch.equal(cnn(vectors, None), vectors)


def test_spelling():
    assert spelt("ab", 6) == [BEGIN + 1, ord("a") + 1, ord("b") + 1, END + 1, PAD + 1, PAD + 1]
    assert spelt("é", 4) == [BEGIN + 1, 0xC3 + 1, 0xA9 + 1, END + 1]
    assert spelt("abcdef", 4) == [BEGIN + 1, ord("a") + 1, ord("b") + 1, END + 1]
    assert Highway(3)(torch.zeros(1, 3)).shape == (1, 3)


@pytest.mark.row("LM-06", reference="torch.nn.LSTM with projections, one a direction and layer")
@pytest.mark.parametrize("characters", [True, False])
def test_both_directions_equal_torchs_lstms(characters):
    model = elmo(characters=characters)
    x = ids()
    with torch.no_grad():
        start = model.embed(x, Context(torch.arange(9)[None]))
        expected = [torch.cat((start, start), -1)]
        halves = [start, start]
        for i in range(L):
            for side, (name, turn) in enumerate((("forwards", False), ("backwards", True))):
                cell = getattr(model.blocks[str(i)], name).cell
                theirs = nn.LSTM(D, C, proj_size=D, batch_first=True)
                theirs.load_state_dict(
                    {
                        "weight_ih_l0": cell.input_proj.weight,
                        "weight_hh_l0": cell.state_proj.weight,
                        "weight_hr_l0": cell.out_proj.weight,
                        "bias_ih_l0": torch.zeros(4 * C),
                        "bias_hh_l0": cell.state_proj.bias,
                    }
                )
                given = halves[side]
                y = theirs(given.flip(1))[0].flip(1) if turn else theirs(given)[0]
                halves[side] = given + y if i else y  # layers after the first are residual
            expected.append(torch.cat(halves, -1))
        layers = model.layers(x)
        for mine, other in zip(layers, expected, strict=True):
            assert_close(mine, other)
        logits = halves[0] @ model.lm_head.linear.weight.T + model.lm_head.linear.bias
        assert_close(model(x), logits)


@pytest.mark.row("LM-06", reference="property: what each direction may know")
def test_each_direction_sees_its_side_alone_and_documents_stay_apart():
    model, x = elmo(), ids(1)
    with torch.no_grad():
        whole = model.layers(x)[-1]
        other = x.clone()
        other[0, 4] = other[0, 4] % (V - 1) + 1
        changed = (model.layers(other)[-1] != whole)[0]
        assert not changed[:4, :D].any()
        assert changed[4:, :D].any(-1).all()
        assert changed[:5, D:].any(-1).all()
        assert not changed[5:, D:].any()
        documents = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 2, 0]])
        apart = model.layers(x, documents)[-1]
        for number in (1, 2):
            here = documents[0] == number
            assert_close(apart[0, here], model.layers(x[:, here])[-1][0])


@pytest.mark.row("LM-06", reference="torch.nn.functional.cross_entropy of each direction")
def test_the_objective_is_the_sum_of_both_directions():
    model, x = elmo(), ids()
    objective = BidirectionalLanguageModeling(BidirectionalConfig(chunk_tokens=3))
    documents = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    labels = torch.full_like(x, -100)
    labels[:, :-1] = torch.where(documents[:, :-1] == documents[:, 1:], x[:, 1:], -100)
    labels[documents == 0] = -100
    batch = objective.prepare({"ids": x, "labels": labels, "documents": documents})
    total, weight, metrics = objective.loss(model(x, documents=documents, head=objective.head(batch)), batch)
    hidden = model.layers(x, documents)[-1]
    expected, count = 0.0, 0
    for row in range(2):
        for number in (1, 2):
            here = (documents[row] == number).nonzero()[:, 0].tolist()
            ahead = [(t, here[i + 1]) for i, t in enumerate(here[:-1])]
            behind = [(t, here[i]) for i, t in enumerate(here[1:])]
            for pairs, part in ((ahead, slice(0, D)), (behind, slice(D, None))):
                for t, target in pairs:
                    expected += F.cross_entropy(model.lm_head.linear(hidden[row, t, part]), x[row, target])
                    count += 1
    assert weight.item() == count == 2 * (2 + 4 + 8)
    assert_close(total, expected)
    both = (metrics["loss_forwards"] + metrics["loss_backwards"]) / weight
    assert_close(both / 2, total.detach() / weight)
    total.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert labels_before({"ids": torch.tensor([[5, 6, 7]])}).tolist() == [[-100, 5, 6]]
    with pytest.raises(UsageError, match="both ends"):
        objective.head(batch)(hidden, nn.Linear(2 * D, V))


@pytest.mark.row("LM-06", reference="formula of Peters et al. 2018")
def test_scalar_mix():
    mix, layers = ScalarMix(3), [torch.randn(2, 4, 2 * D) for _ in range(3)]
    assert_close(mix(layers), sum(layers) / 3)
    with torch.no_grad():
        mix.scalars.copy_(torch.tensor([0.0, 1.0, 2.0]))
        mix.gamma.fill_(2.5)
    weights = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    assert_close(mix(layers), 2.5 * sum(float(w) * h for w, h in zip(weights, layers, strict=True)))


def test_state_generation_and_files(tmp_path):
    """The forward half alone decodes; spelling and shape are read again."""
    model, x = elmo(), ids()
    state = model.make_state(2, 20)
    with torch.no_grad():
        parts = [model(x[:, :4], state=state), model(x[:, 4:5], state=state), model(x[:, 5:], state=state)]
        assert_close(torch.cat(parts, 1), model(x))
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path, dtype="float32")
    assert torch.equal(again(x), model(x))
    assert torch.equal(again.embed.spelling, model.embed.spelling)


@pytest.mark.row("LM-06", reference="published: the released models' tables")
@pytest.mark.parametrize(("name", "millions"), [("elmo-original", 93.6), ("elmo-medium", 28.0), ("elmo-small", 13.6)])
def test_the_published_counts_without_the_softmax(name, millions):
    config = config_of_size(name)
    with torch.device("meta"):
        model = model_class(config)(config)
    count = model.num_parameters() - sum(p.numel() for p in model.lm_head.parameters())
    assert round(count / 1e6, 1) == millions
