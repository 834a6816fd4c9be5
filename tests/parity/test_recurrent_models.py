"""Recurrent language models against models put together from torch.nn's own layers, through files on disk."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import GroundupError
from groundup.estimates.params import count_parameters
from groundup.models.catalogue import config_of_size, model_class
from groundup.models.configs.rnn import RNNConfig
from groundup.models.hub import build_model, load_model

V, D, H, L = 31, 6, 9, 2


class WordLanguageModel(nn.Module):
    """What PyTorch's word-language-model example describes, from torch's parts, with its names of tensors."""

    def __init__(self, cell, tied=False, dropout=0.0):
        super().__init__()
        make = {
            "lstm": nn.LSTM,
            "gru": nn.GRU,
            "simple": nn.RNN,
            "relu": lambda *a, **k: nn.RNN(*a, **k, nonlinearity="relu"),
        }[cell]
        width = H if tied else D
        self.encoder, self.drop = nn.Embedding(V, width), nn.Dropout(dropout)
        self.rnn = make(width, H, num_layers=L, batch_first=True, dropout=dropout)
        self.decoder = nn.Linear(H, V)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, ids):
        return self.decoder(self.drop(self.rnn(self.drop(self.encoder(ids)))[0]))


CASES = {
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "simple": {"cell": "simple"},
    "relu": {"cell": "simple", "hidden_act": "relu"},
    "tied": {"cell": "lstm", "tie_word_embeddings": True},
}


@pytest.fixture(params=CASES)
def pair(request, tmp_path):
    """(theirs, ours, folder): the same weights; ours were read from a file with their names."""
    torch.manual_seed(0)
    settings = CASES[request.param]
    tied = settings.get("tie_word_embeddings", False)
    theirs = WordLanguageModel("lstm" if tied else request.param, tied)
    config = {"model_type": "rnn", "vocab_size": V, "hidden_size": H, "num_hidden_layers": L, **settings}
    if not tied:
        config["embedding_size"] = D
    (tmp_path / "config.json").write_text(json.dumps(config))
    stored = {name: t.detach() for name, t in theirs.state_dict().items() if not (tied and name == "decoder.weight")}
    save_file(stored, tmp_path / "model.safetensors")
    return theirs, load_model(tmp_path), tmp_path


def ids(rows=2, length=12, seed=1):
    return torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.row("LM-05", reference="torch.nn.Embedding, RNN / LSTM / GRU and Linear")
def test_logits_and_gradients_are_equal(pair):
    theirs, ours, _ = pair
    x = ids()
    assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    renamed = dict(ours.weight_map(ours.config).save(gradients, gradients.__getitem__))
    assert set(renamed) == set(expected)
    for name, gradient in renamed.items():
        assert_close(gradient, expected[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.row("LM-05", reference="torch.nn.Embedding, RNN / LSTM / GRU and Linear")
def test_prefill_in_chunks_steps_and_left_padding(pair):
    theirs, ours, _ = pair
    x, state = ids(), ours.make_state(batch=2, max_len=12)
    with torch.no_grad():
        parts = [ours(x[:, :4], state=state), ours(x[:, 4:7], state=state)]
        parts += [ours(x[:, t : t + 1], state=state) for t in range(7, 12)]
        assert_close(torch.cat(parts, dim=1), theirs(x))
        x, lengths = ids(rows=3), (12, 7, 3)
        documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
        state, step = ours.make_state(3, 20), ids(rows=3, length=1, seed=2)
        padded = ours(x, documents=documents, state=state)
        stepped = ours(step, state=state)
        for row, n in enumerate(lengths):
            alone = theirs(torch.cat((x[row : row + 1, -n:], step[row : row + 1]), dim=1))[0]
            assert_close(padded[row, -n:], alone[:-1])
            assert_close(stepped[row], alone[-1:])
    assert state.lengths.tolist() == [13, 8, 4]


@pytest.mark.row("LM-05", reference="torch.nn.Embedding, RNN / LSTM / GRU and Linear")
def test_what_we_save_has_their_names_and_their_numbers(pair):
    theirs, ours, folder = pair
    ours.save_pretrained(folder / "ours")
    stored, expected = load_file(folder / "ours/model.safetensors"), dict(theirs.state_dict())
    if ours.config.tie_word_embeddings:
        del expected["decoder.weight"]
    assert stored.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(stored[name], tensor), name
    theirs.load_state_dict(stored, strict=not ours.config.tie_word_embeddings)
    assert torch.equal(load_model(folder / "ours")(ids()), ours(ids()))


def test_state_select_snapshot_and_no_trim(pair):
    _, ours, _ = pair
    x = ids()
    with torch.no_grad():
        state = ours.make_state(2, 40)
        ours(x[:, :5], state=state)
        memory = state.snapshot()
        first = ours(x[:, 5:8], state=state)
        with pytest.raises(GroundupError, match="cannot forget single tokens"):
            state.trim(1)
        state.restore(memory)
        assert torch.equal(ours(x[:, 5:8], state=state), first)
        state.restore(memory)
        state.select(torch.tensor([1, 0, 1]))
        assert_close(ours(x[[1, 0, 1], 5:8], state=state), first[[1, 0, 1]])
    bytes_after_8 = state.nbytes
    with torch.no_grad():
        ours(x[[1, 0, 1], :12], state=state)
    assert state.nbytes == bytes_after_8 > 0  # a state of fixed size, however long the text


@pytest.mark.row("LM-05", reference="torch.nn.LSTM with dropout 0.5")
def test_dropout_touches_what_goes_up_and_never_what_goes_on():
    """Zaremba et al. 2014: vectors and layers' outputs are dropped, states are not.

    With everything dropped on its way up (p near 1), the second layer sees zeros, but its state still runs.
    """
    torch.manual_seed(0)
    config = RNNConfig(vocab_size=V, hidden_size=H, num_hidden_layers=2, dropout=0.5)
    model = build_model(config)
    seen = []
    for block in model.blocks.values():
        block.rnn.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    model(ids(4, 30))
    for inputs, outputs in seen:
        assert 0.35 < (inputs == 0).float().mean() < 0.65
        assert (outputs != 0).all()
    evaluated = model.eval()(ids())
    assert torch.equal(evaluated, model(ids()))


def test_initial_weights_and_the_forget_gate():
    torch.manual_seed(0)
    model = build_model(RNNConfig(vocab_size=V, hidden_size=64, forget_bias=1.0))
    bias = model.blocks["0"].rnn.cell.input_proj.bias
    assert (bias[64:128] == 1).all()
    others = torch.cat((bias[:64], bias[128:]))
    assert others.abs().max() <= 1 / 8 < 2 * others.abs().max()
    small = build_model(RNNConfig(vocab_size=V, hidden_size=64, initializer_range=0.01))
    assert small.embed.weight.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tie_word_embeddings": True, "embedding_size": 5}, "embedding_size"),
        ({"cell": "lstn"}, "lstm"),
        ({"num_attention_heads": 4}, "num_attention_heads is 1"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_configs_are_refused(changes, message):
    with pytest.raises(GroundupError, match=message):
        RNNConfig.parse({"vocab_size": V, "hidden_size": H, **changes})


# Zaremba et al. 2014, section 4.1; 20M and 66M in the tables of later papers
PUBLISHED = {"zaremba-medium": 19_780_400, "zaremba-large": 66_034_000}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    config = config_of_size(name)
    with torch.device("meta"):
        built = model_class(config)(config)
    assert built.num_parameters() == count_parameters(config) == PUBLISHED[name]


def test_counts_without_building_equal_the_built_model():
    config = RNNConfig(vocab_size=V, hidden_size=H, embedding_size=D)
    assert count_parameters(config) == build_model(config).num_parameters()
    assert count_parameters(config.to_hf()) == count_parameters(config)
    # 2 x 4 gates: H (D + H) and H (H + H), then the head
    from groundup.estimates.flops import flops

    assert flops(config, seq_len=10, batch=3).forward == 2 * 30 * (4 * H * (D + H) + 4 * H * 2 * H + H * V)
