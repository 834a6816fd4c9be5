"""Probes of frozen vectors: pooling, what a probe can and cannot read, a real task layer by layer."""

import bisect
import colorsys
import inspect
import io
import keyword
import sched
import tokenize

import pytest
import torch
from torch.testing import assert_close

import groundup
from families.tiny import ids, make_ours
from groundup.adapters.probe import (
    Settings,
    accuracy,
    control_labels,
    features,
    probe_layers,
    token_labels,
    train_probe,
)
from groundup.base.errors import UsageError

TAGS = {tokenize.OP: 0, tokenize.NUMBER: 2, tokenize.STRING: 3, tokenize.COMMENT: 4}
NAME, KEYWORD = 1, 5


@pytest.mark.row("PEFT-02", reference="the model's own hidden vectors, row by row")
def test_pooled_vectors_are_those_of_each_row_alone_and_the_model_stays(tmp_path):
    model = make_ours("gpt2", tmp_path).train()
    rows = [ids(1, n, seed=n)[0].tolist() for n in (5, 9, 2)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = {p: features(model, rows, ["embed", "norm"], p, batch_size=2) for p in ("first", "last", "mean", "tokens")}
    assert model.training
    model.eval()
    hidden = [model(torch.tensor([row]), head=lambda h, _: h)[0].detach() for row in rows]
    assert_close(found["first"]["norm"], torch.stack([h[0] for h in hidden]))
    assert_close(found["last"]["norm"], torch.stack([h[-1] for h in hidden]))
    assert_close(found["mean"]["norm"], torch.stack([h.mean(0) for h in hidden]))
    assert_close(found["tokens"]["norm"], torch.cat(hidden))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(UsageError, match="no empty ones"):
        features(model, [[1], []], ["norm"])


@pytest.mark.row("PEFT-02", reference="classes with known boundaries")
def test_a_linear_probe_reads_what_a_plane_parts_and_an_mlp_what_it_does_not():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 3 + 5
    sides = (x[:, 0] > 5).long()
    crossed = ((x[:, 0] > 5) ^ (x[:, 1] > 5)).long()  # the two classes lie crosswise
    assert accuracy(train_probe(x[:300], sides[:300]), x[300:], sides[300:]) > 0.95
    assert accuracy(train_probe(x[:300], crossed[:300]), x[300:], crossed[300:]) < 0.7
    mlp = train_probe(x[:300], crossed[:300], Settings(hidden=32, steps=400))
    assert accuracy(mlp, x[300:], crossed[300:]) > 0.9


def test_control_labels_belong_to_kinds_and_tokens_take_the_tags_of_their_words():
    kinds = torch.tensor([3, 1, 3, 7, 1])
    labels = control_labels(kinds, 4)
    assert labels[0] == labels[2]
    assert labels[1] == labels[4]
    assert token_labels([(0, 3, 7), (4, 9, 8)], [(0, 2), (2, 3), (3, 6), (6, 9), (9, 10)]) == [7, 7, 8, 8, -100]
    with pytest.raises(UsageError, match="one each"):
        train_probe(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))


def tagged(tokenizer, text):
    """Ids of a source, and the kind of Python token that each token stands in."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        tag = TAGS.get(token.type)
        if token.type == tokenize.NAME:
            tag = KEYWORD if keyword.iskeyword(token.string) else NAME
        if tag is not None:
            (a, b), (c, d) = token.start, token.end
            spans.append((starts[a - 1] + b, starts[c - 1] + d, tag))
    encoding = tokenizer.encode_offsets(text)
    return encoding.ids, token_labels(spans, encoding.offsets)


def halves(tokenizer, sources, width=64):
    """Rows of ids and the labels of their tokens: every other row for training, the rest for judging."""
    rows, labels = ([], []), ([], [])
    for source in sources:
        ids, tags = tagged(tokenizer, source)
        for number, start in enumerate(range(0, len(ids), width)):
            rows[number % 2].append(ids[start : start + width])
            labels[number % 2].extend(tags[start : start + width])
    return (rows[0], torch.tensor(labels[0])), (rows[1], torch.tensor(labels[1]))


@pytest.mark.row("PEFT-02", reference="Python's own tokenizer")
def test_the_kinds_of_python_tokens_are_read_off_layer_by_layer():
    model, tokenizer = groundup.load_model("tiny", dtype="float32"), groundup.load_tokenizer("tiny")
    (rows, labels), (test_rows, test_labels) = halves(tokenizer, map(inspect.getsource, (bisect, colorsys, sched)))
    layers = ["embed", *(f"blocks.{i}" for i in model.blocks)]
    kinds = tuple(torch.tensor([token for row in part for token in row]) for part in (rows, test_rows))
    found = probe_layers(
        features(model, rows, layers, "tokens"),
        labels,
        features(model, test_rows, layers, "tokens"),
        test_labels,
        Settings(steps=60),
        kinds,
    )
    judged = test_labels[test_labels >= 0]
    majority = (judged == judged.mode().values).float().mean().item()
    embed, deepest = found[0], found[-1]
    best = max(f.accuracy for f in found[1:])
    assert best > embed.accuracy + 0.02 > majority  # the context tells more than the token alone
    assert embed.selectivity < deepest.selectivity - 0.1  # tokens by themselves are learned by heart
