"""Recurrent cells and layers against torch.nn's: outputs, final states and gradients, weights carried over."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from groundup.layers.context import Context
from groundup.layers.recurrent import GRU, LSTM, Bidirectional, Recurrent, ResetFirstGRU, SimpleRNN, Stack
from groundup.state import RecurrentState, State

D, H, B, T = 5, 7, 3, 11
KINDS = {
    "tanh": (lambda d, bias: SimpleRNN(d, H, bias), lambda d, **k: nn.RNN(d, H, batch_first=True, **k)),
    "relu": (
        lambda d, bias: SimpleRNN(d, H, bias, act="relu"),
        lambda d, **k: nn.RNN(d, H, batch_first=True, nonlinearity="relu", **k),
    ),
    "lstm": (lambda d, bias: LSTM(d, H, bias), lambda d, **k: nn.LSTM(d, H, batch_first=True, **k)),
    "gru": (lambda d, bias: GRU(d, H, bias), lambda d, **k: nn.GRU(d, H, batch_first=True, **k)),
}
kinds = pytest.mark.parametrize("kind", KINDS)
fused = pytest.mark.parametrize("fused", [True, False], ids=["kernel", "loop"])


def plain(length=T):
    return Context(torch.arange(length)[None])


def take_weights(cell, theirs, layer=0, reverse=False):
    end = f"_l{layer}" + ("_reverse" if reverse else "")
    names = {"input_proj.weight": "weight_ih", "state_proj.weight": "weight_hh"}
    if theirs.bias:
        names |= {"input_proj.bias": "bias_ih", "state_proj.bias": "bias_hh"}
    cell.load_state_dict({ours: getattr(theirs, name + end).detach().clone() for ours, name in names.items()})
    return {ours: getattr(theirs, name + end) for ours, name in names.items()}


def pair(kind, fused, bias=True):
    torch.manual_seed(0)
    make, make_theirs = KINDS[kind]
    theirs = make_theirs(D, bias=bias)
    cell = make(D, bias)
    names = take_weights(cell, theirs)
    return Recurrent(cell, fused=fused), theirs, names


def assert_gradients_equal(cell, names):
    for ours, theirs in names.items():
        assert_close(cell.get_parameter(ours).grad, theirs.grad, msg=lambda m, ours=ours: f"{ours}: {m}")


def their_state(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.row("LAY-49", reference="torch.nn.RNN, LSTM, GRU")
@kinds
@fused
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_outputs_and_gradients_equal_torchs(kind, fused, bias):
    ours, theirs, names = pair(kind, fused, bias)
    x = torch.randn(B, T, D)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(mine, plain()), theirs(other)[0]
    assert_close(y, expected)
    weight = torch.randn(B, T, H)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(mine.grad, other.grad)
    assert_gradients_equal(ours.cell, names)


@pytest.mark.row("LAY-49", reference="torch.nn.RNNCell, LSTMCell, GRUCell")
@pytest.mark.parametrize(
    ("kind", "theirs"), [("tanh", nn.RNNCell(D, H)), ("lstm", nn.LSTMCell(D, H)), ("gru", nn.GRUCell(D, H))]
)
def test_one_step_of_a_cell_equals_torchs_cell(kind, theirs):
    cell = KINDS[kind][0](D, True)
    names = {"input_proj.weight": "weight_ih", "state_proj.weight": "weight_hh"}
    names |= {"input_proj.bias": "bias_ih", "state_proj.bias": "bias_hh"}
    cell.load_state_dict({ours: theirs.get_parameter(name).detach() for ours, name in names.items()})
    x, memory = torch.randn(B, D), tuple(torch.randn(B, H) for _ in cell.memory)
    expected = their_state(theirs(x, memory if len(memory) > 1 else memory[0]))
    for ours, other in zip(cell(x, memory), expected, strict=True):
        assert_close(ours, other)


@pytest.mark.row("LAY-49", reference="torch.nn.RNN, LSTM, GRU on packed sequences")
@kinds
@fused
def test_padded_rows_equal_torchs_packed_sequences(kind, fused):
    """Padding on the left here, on the right there; outputs, gradients and the states after the last real token."""
    ours, theirs, names = pair(kind, fused)
    lengths = [4, 11, 7]
    rows = [torch.randn(n, D) for n in lengths]
    left, right = (torch.full((B, T, D), 9.0) for _ in range(2))  # nonsense where nothing is to be read
    documents = torch.zeros(B, T, dtype=torch.int64)
    for i, row in enumerate(rows):
        left[i, T - len(row) :], right[i, : len(row)], documents[i, T - len(row) :] = row, row, 1
    state = state_for(ours, B)
    y = ours(left, Context(torch.arange(T)[None], documents, state))
    packed = pack_padded_sequence(right, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    expected, last = theirs(packed)
    expected = pad_packed_sequence(expected, batch_first=True)[0]
    for i, n in enumerate(lengths):
        assert_close(y[i, T - n :], expected[i, :n])
        assert (y[i, : T - n] == 0).all()
    for name, value in zip(ours.cell.memory, their_state(last), strict=True):
        assert_close(state.layers["rnn"].tensors[name], value[0])
    y.square().sum().backward()
    expected.square().sum().backward()
    assert_gradients_equal(ours.cell, names)


def state_for(layer, batch):
    layer.path = "rnn"
    return State({"rnn": RecurrentState()}, batch, 100)


@kinds
@fused
def test_a_text_in_pieces_equals_the_whole(kind, fused):
    ours, theirs, _ = pair(kind, fused)
    x, state = torch.randn(B, T, D), state_for(ours, B)
    with torch.no_grad():
        parts = [ours(x[:, a:b], Context(torch.arange(b - a)[None], state=state)) for a, b in ((0, 4), (4, 5), (5, T))]
        assert_close(torch.cat(parts, 1), theirs(x)[0])
        before = {name: value.clone() for name, value in state.layers["rnn"].tensors.items()}
        padding = torch.zeros(B, 2, dtype=torch.int64)
        assert (ours(x[:, :2], Context(torch.arange(2)[None], padding, state)) == 0).all()
        some = torch.tensor([[0, 0], [0, 1], [0, 0]])
        ours(x[:, :2], Context(torch.arange(2)[None], some, state))
    for name, value in state.layers["rnn"].tensors.items():  # a row of padding alone keeps its state
        assert torch.equal(value[[0, 2]], before[name][[0, 2]])
        assert not torch.equal(value[1], before[name][1])


@kinds
@fused
def test_packed_documents_do_not_see_each_other(kind, fused):
    ours, theirs, _ = pair(kind, fused)
    x = torch.randn(2, 9, D)
    documents = torch.tensor([[1, 1, 2, 2, 2, 2, 3, 0, 0], [0, 1, 1, 1, 2, 0, 2, 2, 0]])
    y = ours(x, Context(torch.arange(9)[None], documents))
    for row, document in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2)):
        here = documents[row] == document
        assert_close(y[row, here], theirs(x[row, here][None])[0][0])
    assert (y[documents == 0] == 0).all()


@fused
def test_padding_alone_gives_zeros(fused):
    ours, _, _ = pair("lstm", fused)
    y = ours(torch.randn(2, 3, D), Context(torch.arange(3)[None], torch.zeros(2, 3, dtype=torch.int64)))
    assert y.shape == (2, 3, H)
    assert (y == 0).all()


@pytest.mark.row("LAY-50", reference="torch.nn.RNN, LSTM, GRU with bidirectional=True")
@kinds
@fused
def test_bidirectional_equals_torchs_on_padded_rows(kind, fused):
    torch.manual_seed(0)
    make, make_theirs = KINDS[kind]
    theirs = make_theirs(D, bidirectional=True)
    forwards, backwards = make(D, True), make(D, True)
    names = [take_weights(forwards, theirs), take_weights(backwards, theirs, reverse=True)]
    ours = Bidirectional(Recurrent(forwards, fused=fused), Recurrent(backwards, fused=fused, backwards=True))
    x = torch.randn(B, T, D)
    assert_close(ours(x, plain()), theirs(x)[0])  # (B, T, 2 H)
    lengths = torch.tensor([3, 11, 6])
    documents = (torch.arange(T) < lengths[:, None]).long()
    y = ours(x, Context(torch.arange(T)[None], documents))
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]
    assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for cell, of_cell in zip((forwards, backwards), names, strict=True):
        assert_gradients_equal(cell, of_cell)


@pytest.mark.row("LAY-50", reference="torch.nn.LSTM with two bidirectional layers")
def test_stacked_bidirectional_layers_equal_torchs():
    theirs = nn.LSTM(D, H, num_layers=2, bidirectional=True, batch_first=True)
    layers = []
    for i, width in enumerate((D, 2 * H)):
        cells = LSTM(width, H), LSTM(width, H)
        for cell, reverse in zip(cells, (False, True), strict=True):
            take_weights(cell, theirs, i, reverse)
        layers.append(Bidirectional(Recurrent(cells[0]), Recurrent(cells[1], backwards=True)))
    x = torch.randn(B, T, D)
    assert_close(Stack(*layers)(x, plain()), theirs(x)[0])


@pytest.mark.row("LAY-49", reference="formulas of Cho et al. 2014, in numpy")
def test_the_published_gru_resets_before_the_product():
    import numpy as np

    cell = ResetFirstGRU(D, H)
    x, h = torch.randn(1, T, D), np.zeros(H)
    names = ("input_proj", "state_proj", "candidate_proj")
    (w, b), (u, c), (un, cn) = (
        [p.detach().double().numpy() for p in getattr(cell, name).parameters()] for name in names
    )
    expected = []
    for v in x[0].double().numpy():
        a, s = w @ v + b, u @ h + c
        r, z = (1 / (1 + np.exp(-(a[i : i + H] + s[i : i + H]))) for i in (0, H))
        n = np.tanh(a[2 * H :] + un @ (r * h) + cn)
        h = (1 - z) * n + z * h
        expected.append(h)
    y = Recurrent(cell)(x, plain())
    assert_close(y[0], torch.tensor(np.array(expected)).float())
    # without the reset gate's bias it is closed or open alike in both forms only by chance
    assert not torch.allclose(y, Recurrent(GRU(D, H))(x, plain()))


def test_weight_dropout_drops_entries_for_a_whole_call_and_only_in_training():
    """The kernel with a dropped matrix equals the loop with it, and the plain layer with that matrix."""
    torch.manual_seed(0)
    layer = Recurrent(LSTM(D, H), weight_dropout=0.5)
    x = torch.randn(B, T, D)
    full = layer.cell.state_proj.weight
    torch.manual_seed(5)
    y = layer(x, plain())
    layer.fused = False
    torch.manual_seed(5)
    assert_close(layer(x, plain()), y)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(full, 0.5, True)
    assert 0.3 < (dropped == 0).float().mean() < 0.7
    assert not torch.allclose(layer(x, plain()), y)  # another call drops others
    layer.eval()
    evaluated = layer(x, plain())
    with torch.no_grad():
        full.copy_(dropped)
    assert_close(layer(x, plain()), y)
    assert not torch.allclose(evaluated, y)


def test_a_projection_that_was_exchanged_is_used():
    """An adapter in place of a projection leads through the loop, which calls it."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer, x = Recurrent(LSTM(D, H)), torch.randn(B, T, D)
    doubled = Doubled(H, 4 * H)
    doubled.load_state_dict(layer.cell.state_proj.state_dict())
    with torch.no_grad():
        layer.cell.state_proj = doubled
        y = layer(x, plain())
        plain_matrix = nn.Linear(H, 4 * H)
        plain_matrix.load_state_dict({name: 2 * value for name, value in doubled.state_dict().items()})
        layer.cell.state_proj = plain_matrix
        assert_close(layer(x, plain()), y)


def test_the_state_is_kept_in_the_weights_type_under_autocast():
    layer, x = Recurrent(LSTM(D, H)), torch.randn(B, T, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(layer(x.bfloat16(), plain()), layer(x.bfloat16().float(), plain()))


def test_a_layer_that_reads_from_the_end_refuses_a_state():
    from groundup.base.errors import UsageError

    layer = Recurrent(LSTM(D, H), backwards=True)
    with pytest.raises(UsageError, match="reads from the end"):
        layer(torch.randn(B, T, D), Context(torch.arange(T)[None], state=state_for(layer, B)))
    with pytest.raises(UsageError, match="backwards=True"):
        Bidirectional(Recurrent(LSTM(D, H)), Recurrent(LSTM(D, H)))
