import math

import pytest
import torch
import transformers
from sklearn.metrics import accuracy_score

from groundup.evaluation.likelihood import loglikelihood, rolling_loglikelihood
from groundup.evaluation.metrics.answers import accuracy
from groundup.evaluation.multiple_choice import predictions
from groundup.evaluation.perplexity import measure
from groundup.models.hub import load_model
from standin import Bytes

TEXT = "Once upon a time there was a café, and in it lived a cat. " * 4


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    torch.manual_seed(0)
    if request.param == "gpt2":
        config = transformers.GPT2Config(vocab_size=258, n_positions=64, n_embd=32, n_layer=2, n_head=4)
        reference = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=258,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
        reference = transformers.LlamaForCausalLM(config)
    for parameter in reference.parameters():
        parameter.data *= 3 if parameter.ndim > 1 else 1
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    return reference.eval(), load_model(folder)


@torch.no_grad()
def their_loss(reference, ids, scored):
    """Mean negative log-likelihood of the last `scored` ids, computed by transformers."""
    labels = torch.tensor([[-100] * (len(ids) - scored) + ids[-scored:]])
    return float(reference(torch.tensor([ids]), labels=labels).loss)


@pytest.mark.row("EVAL-01", reference="transformers")
def test_perplexity_of_short_documents(pair):
    reference, model = pair
    texts = ["The cat sat.", "Où?", "A third document, somewhat longer than the others"]
    nll = tokens = size = 0
    for text in texts:
        ids = [257, *text.encode()]
        nll += their_loss(reference, ids, len(ids) - 1) * (len(ids) - 1)
        tokens, size = tokens + len(ids) - 1, size + len(text.encode())
    found = measure(model, Bytes(), texts, batch_size=2)
    assert found.perplexity == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nll / size / math.log(2), rel=1e-5)


@pytest.mark.row("EVAL-01", reference="transformers: the strided evaluation of its documentation")
@pytest.mark.parametrize("stride", [64, 32, 5])
def test_perplexity_of_a_long_document(pair, stride):
    reference, model = pair
    ids, nll, previous = [257, *TEXT.encode()], 0.0, 1
    while previous < len(ids):
        # the model reads 64 tokens; the last of the 65 is only predicted, so it is fed as label alone
        end = min(65 if previous == 1 else previous + stride, len(ids))
        part = ids[max(0, end - 65) : end]
        with torch.no_grad():
            logits = reference(torch.tensor([part[:-1]])).logits[0, -(end - previous) :]
        nll += float(
            torch.nn.functional.cross_entropy(logits, torch.tensor(part[-(end - previous) :]), reduction="sum")
        )
        previous = end
    (found,) = rolling_loglikelihood(model, Bytes(), [TEXT], stride=stride)
    assert -found.logprob == pytest.approx(nll, rel=1e-5)
    assert found.tokens == len(TEXT.encode())


@pytest.mark.row("EVAL-02", reference="transformers")
def test_multiple_choice(pair):
    reference, model = pair
    chosen = []
    for question in ("The cat sat on the", "2 + 2 =", "Is it so?"):
        choices = [" mat", " a very long answer", " 4", " no"]
        found = loglikelihood(model, Bytes(), [(c, a) for c in (question, "Answer:") for a in choices], batch_size=3)
        expected = [
            -their_loss(reference, list((c + a).encode()), len(a)) * len(a)
            for c in (question, "Answer:")
            for a in choices
        ]
        assert [item.logprob for item in found] == pytest.approx(expected, rel=1e-5)
        given, neutral = expected[:4], expected[4:]
        lengths = [len(a) for a in choices]
        best = predictions(found[:4], found[4:])
        assert best["unnormalized"] == max(range(4), key=lambda i: given[i])
        assert best["per_token"] == max(range(4), key=lambda i: given[i] / lengths[i])
        assert best["frequency"] == max(range(4), key=lambda i: given[i] - neutral[i])
        chosen += best.values()
    assert len(set(chosen)) > 1


def test_accuracy():
    truth, guess = [0, 1, 2, 2, 1, 0, 1], [0, 2, 2, 2, 1, 1, 1]
    assert accuracy(guess, truth).value == pytest.approx(accuracy_score(truth, guess))
