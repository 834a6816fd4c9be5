"""AWD-LSTM and ULMFiT's training: against torch.nn's LSTM, formulas written out, and the published counts."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.context import Context
from groundup.layers.regularisers import ActivationPenalty, LockedDropout, WordDropEmbedding
from groundup.models.catalogue import config_of_size, model_class
from groundup.models.configs.awd_lstm import AWDLSTMConfig
from groundup.models.hub import build_model, load_model
from groundup.models.text.concat_pooling import ConcatPooling, TextClassifier
from groundup.training.callbacks.unfreeze import GradualUnfreezing
from groundup.training.config import TrainingConfig
from groundup.training.loop import fit
from groundup.training.objectives.classification import Classification
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.optimizers.config import AdamWConfig
from groundup.training.schedules import Constant, SlantedTriangular

V, D, H, L = 23, 6, 9, 3
SHAPE = {"vocab_size": V, "embedding_size": D, "hidden_size": H, "num_hidden_layers": L}


def awd(**changes):
    torch.manual_seed(0)
    return build_model(AWDLSTMConfig(**SHAPE | changes))


def ids(rows=2, length=12, seed=1):
    return torch.randint(1, V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.row("LM-06", reference="torch.nn.LSTM, a layer at a time")
def test_without_dropout_it_is_torchs_lstms_under_a_tied_head(tmp_path):
    model, x = awd().eval(), ids()
    widths = [D, H, H, D]
    with torch.no_grad():
        h = model.embed.weight[x]
        for i in range(L):
            cell = model.blocks[str(i)].rnn.cell
            theirs = nn.LSTM(widths[i], widths[i + 1], batch_first=True)
            weights = (cell.input_proj.weight, cell.state_proj.weight, cell.input_proj.bias, cell.state_proj.bias)
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            theirs.load_state_dict(dict(zip(names, weights, strict=True)))
            h = theirs(h)[0]
        assert_close(model(x), h @ model.embed.weight.T + model.lm_head.bias)
        state = model.make_state(2, 20)
        parts = [model(x[:, :5], state=state), model(x[:, 5:6], state=state), model(x[:, 6:], state=state)]
        assert_close(torch.cat(parts, 1), model(x))
    assert model.lm_head.weight is model.embed.tokens.weight
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path)(x), model(x))


@pytest.mark.row("LM-06", reference="published: Merity et al. 2017, tables 1 and 2")
@pytest.mark.parametrize(("name", "millions"), [("awd-lstm-ptb", 24), ("awd-lstm-wt2", 33)])
def test_published_sizes(name, millions):
    config = config_of_size(name)
    with torch.device("meta"):
        assert int(model_class(config)(config).num_parameters() / 1e6) == millions


def test_locked_dropout_has_one_mask_for_all_positions():
    torch.manual_seed(0)
    dropout, x = LockedDropout(0.5), torch.ones(3, 7, 40)
    y = dropout(x)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert 0.3 < (y == 0).float().mean() < 0.7
    assert not torch.equal(y[0], y[1])
    assert torch.equal(dropout.eval()(x), x)


def test_dropped_words_are_zero_wherever_they_stand():
    torch.manual_seed(0)
    embed, x = WordDropEmbedding(50, 4, word_dropout=0.5), torch.randint(0, 50, (4, 60))
    y, plain = embed(x, None), embed.tokens(x)
    for word in x.unique():
        here = y[x == word]
        dropped = (here == 0).all()
        assert_close(here, torch.zeros_like(here) if dropped else 2 * plain[x == word])
    share = torch.tensor([(y[x == w] == 0).all() for w in x.unique()]).float().mean()
    assert 0.3 < share < 0.7
    assert torch.equal(embed.eval()(x, None), plain)


@pytest.mark.row("LM-06", reference="autograd of the penalty written out")
@pytest.mark.parametrize("packed", [False, True])
def test_the_activation_penalty_is_the_gradient_of_its_formula(packed):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, D), torch.randn(2, 6, D)
    documents = torch.tensor([[0, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]]) if packed else None
    context = Context(torch.arange(6)[None], documents)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = ActivationPenalty(2.0, 0.7)(mine, context)
    assert torch.equal(y, x)
    (y * weight).sum().backward()
    loss = (other * weight).sum()
    for row in range(2):
        for t in range(6):
            number = 1 if documents is None else int(documents[row, t])
            following = 0 if t == 5 else 1 if documents is None else int(documents[row, t + 1])
            loss = loss + 2.0 * other[row, t].square().mean() * (number != 0)
            if t < 5 and number == following != 0:
                loss = loss + 0.7 * (other[row, t + 1] - other[row, t]).square().mean()
    loss.backward()
    assert_close(mine.grad, other.grad)
    evaluated = ActivationPenalty(2.0, 0.7).eval()(mine, context)
    assert evaluated is mine


# -- ULMFiT ------------------------------------------------------------------------------------------------------------


@pytest.mark.row("LM-06", reference="Howard & Ruder 2018, equation 3")
def test_the_slanted_triangle():
    """T = 1000, cut_frac 0.1, ratio 32: 1/32 at the start, 1 at step 100, straight lines between, 1/32 at the end."""
    schedule, total = SlantedTriangular(), 1000
    cut = math.floor(total * 0.1)
    for t in (0, 1, 57, 100, 101, 550, 999, 1000):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / 0.1 - 1))
        assert schedule.factor(t, total) == pytest.approx((1 + p * 31) / 32)
    assert schedule.factor(0, total) == pytest.approx(1 / 32)
    assert max(schedule.values(total)) == schedule.factor(cut, total) == 1
    assert schedule.factor(total, total) == pytest.approx(1 / 32)
    assert min(schedule.values(7)) >= 1 / 32 - 1e-9


@pytest.mark.row("LM-06", reference="Howard & Ruder 2018, section 3.2: 2.6 for every layer below")
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_discriminative_rates(kind):
    from groundup.training.optimizers.config import MuonConfig

    model = TextClassifier(awd(), classes=2)
    settings = {"lr": 0.01, "layer_factor": 2.6}
    optimizer = (AdamWConfig if kind == "adamw" else MuonConfig)(**settings).build(model.named_parameters())
    rates = {name: g["initial_lr"] for g in optimizer.param_groups for name in g["param_names"]}
    assert rates.keys() == {name for name, _ in model.named_parameters()}
    for name, rate in rates.items():
        below = 0 if name.startswith("score") else 4 if name.startswith("embed") else 3 - int(name.split(".")[1])
        assert rate == pytest.approx(0.01 / 2.6**below), name
    assert optimizer.param_groups[0]["lr"] == 0.01
    SlantedTriangular().apply(optimizer, 0, 100)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.01 / 2.6**4 / 32)


class Watch(GradualUnfreezing):
    """Writes down which layers changed in each step."""

    def __init__(self, steps):
        super().__init__(steps)
        self.changed = []

    def on_start(self, training):
        super().on_start(training)
        self.before = {n: p.detach().clone() for n, p in training.model.named_parameters()}

    def on_step(self, training, result):
        now = {n: p.detach().clone() for n, p in training.model.named_parameters()}
        changed = {n for n in now if not torch.equal(now[n], self.before[n])}
        self.changed.append({".".join(n.split(".")[: 2 if n.startswith("blocks") else 1]) for n in changed})
        self.before = now
        super().on_step(training, result)


@pytest.mark.row("LM-06", reference="Howard & Ruder 2018, section 3.3")
def test_gradual_unfreezing_lets_one_more_layer_learn_at_each_stage(tmp_path):
    model, watch = TextClassifier(awd(), classes=2), Watch(steps=2)
    batches = [{"ids": ids(4), "classes": torch.tensor([0, 1, 0, 1])} for _ in range(12)]
    config = TrainingConfig(
        steps=12,
        batch_size=4,
        optimizer=AdamWConfig(lr=1e-2),
        schedule=Constant(),
        out_dir=tmp_path,
        checkpoint_every=50,
    )
    fit(model, Classification(), batches, config, [watch])
    order = ["score", "blocks.2", "blocks.1", "blocks.0", "embed"]
    for step, changed in enumerate(watch.changed):
        assert changed == set(order[: 1 + step // 2]), step
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(UsageError, match="at least one step"):
        GradualUnfreezing(0)


@pytest.mark.row("LM-06", reference="last, largest and mean written out")
def test_concat_pooling():
    hidden = torch.randn(2, 5, 3)
    assert_close(ConcatPooling()(hidden)[0], torch.cat((hidden[0, 4], hidden[0].amax(0), hidden[0].mean(0))))
    documents = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    pooled = ConcatPooling()(hidden, documents)
    for row, real in ((0, slice(0, 3)), (1, slice(2, 5))):
        part = hidden[row, real]
        assert_close(pooled[row], torch.cat((part[-1], part.amax(0), part.mean(0))))


def test_a_classifier_does_not_see_padding():
    model = TextClassifier(awd(), classes=3).eval()
    x = ids(2, 6)
    left = torch.cat((torch.zeros(2, 4, dtype=torch.int64), x), 1)
    documents = torch.tensor([[0] * 4 + [1] * 6] * 2)
    assert_close(model(left, documents=documents), model(x))


@pytest.mark.slow
@pytest.mark.row("LM-06", reference="the same classifier without the language model")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_language_model_helps_a_classifier_with_few_labels(seed, tmp_path):
    """Language model on unlabelled text, then a classifier with ULMFiT's rates and unfreezing on 12 labelled texts.

    A text is of one of two topics, each with words of its own, among words of no topic. Twelve texts show few of the
    topic words; the language model has seen which words stand together.
    """
    scratch, tuned = accuracies(seed, tmp_path)
    assert tuned > 0.9
    assert scratch < 0.8


def accuracies(seed, folder):
    generator = torch.Generator().manual_seed(seed)

    def texts(count):
        classes = torch.randint(0, 2, (count,), generator=generator)
        topic = 11 + 25 * classes[:, None] + torch.randint(0, 25, (count, 16), generator=generator)
        filler = torch.randint(1, 11, (count, 16), generator=generator)
        return torch.where(torch.rand(count, 16, generator=generator) < 0.5, topic, filler), classes

    def settings(name, steps, **optimizer):
        return TrainingConfig(
            steps=steps,
            batch_size=len(few) if name != "language model" else 64,
            optimizer=AdamWConfig(weight_decay=0.01, **optimizer),
            schedule=SlantedTriangular(),
            out_dir=folder / name,
            checkpoint_every=1000,
            compile=False,
        )

    unlabelled, (few, labels), (test, answers) = texts(512)[0], texts(12), texts(400)
    shape = {"vocab_size": 61, "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 1}
    light = {"dropout": 0.1, "input_dropout": 0.1, "weight_dropout": 0.1, "word_dropout": 0.0}
    light |= {"activation_penalty": 0.0, "change_penalty": 0.0}
    results = []
    for pretrained in (False, True):
        torch.manual_seed(seed)
        model = build_model(AWDLSTMConfig(**shape, **light))
        if pretrained:
            rows = [{"ids": part[:, :-1], "labels": part[:, 1:]} for part in unlabelled.split(64)] * 25
            fit(model, LanguageModeling(), rows, settings("language model", 200, lr=0.02))
        classifier = TextClassifier(model, classes=2, hidden=16)
        config = settings(f"classifier {pretrained}", 50, lr=0.01, layer_factor=2.6)
        fit(classifier, Classification(), [{"ids": few, "classes": labels}] * 50, config, [GradualUnfreezing(15)])
        classifier.eval()
        with torch.no_grad():
            results.append((classifier(test).argmax(-1) == answers).float().mean().item())
    return results
