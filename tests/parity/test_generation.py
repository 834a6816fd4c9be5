import pytest
import torch
from transformers.generation import logits_process as theirs

from groundup.generation import sampling
from groundup.generation.config import SamplingConfig
from groundup.generation.sampler import Sampler

LOGITS = torch.randn(6, 200, generator=torch.Generator().manual_seed(0)) * 4
IDS = torch.randint(0, 200, (6, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.row("INF-02", reference="transformers")
@pytest.mark.parametrize("t", [0.1, 0.7, 1.0, 3.0])
def test_temperature(t):
    torch.testing.assert_close(sampling.temperature(LOGITS, t), theirs.TemperatureLogitsWarper(t)(IDS, LOGITS))


@pytest.mark.row("INF-03", reference="transformers")
@pytest.mark.parametrize("k", [1, 5, 200, 500])
def test_top_k(k):
    torch.testing.assert_close(sampling.top_k(LOGITS, k), theirs.TopKLogitsWarper(k)(IDS, LOGITS))


@pytest.mark.row("INF-04", reference="transformers")
@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_top_p(p):
    torch.testing.assert_close(sampling.top_p(LOGITS, p), theirs.TopPLogitsWarper(p)(IDS, LOGITS))


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_min_p(p):
    torch.testing.assert_close(sampling.min_p(LOGITS, p), theirs.MinPLogitsWarper(p)(IDS, LOGITS))


@pytest.mark.row("INF-06", reference="transformers")
@pytest.mark.parametrize("penalty", [0.8, 1.2, 2.0])
def test_repetition_penalty(penalty):
    seen = torch.zeros(6, 200, dtype=torch.bool).scatter(1, IDS, True)
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(IDS, LOGITS.clone())
    torch.testing.assert_close(sampling.repetition_penalty(LOGITS, seen, penalty), expected)


@pytest.mark.row("INF-06", reference="transformers")
def test_invalid_scores():
    bad = LOGITS.clone()
    bad[0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    torch.testing.assert_close(sampling.replace_invalid(bad), theirs.InfNanRemoveLogitsProcessor()(IDS, bad))


@pytest.mark.row("INF-06", reference="transformers")
def test_all_processors_in_order():
    config = SamplingConfig(
        logit_bias={3: 5.0, 9: -float("inf")},
        repetition_penalty=1.4,
        min_new_tokens=2,
        temperature=0.7,
        top_k=40,
        top_p=0.8,
        min_p=0.02,
        invalid_scores="replace",
    )
    processors = [
        theirs.SequenceBiasLogitsProcessor([[[3], 5.0], [[9], -float("inf")]]),
        theirs.RepetitionPenaltyLogitsProcessor(1.4),
        theirs.MinNewTokensLengthLogitsProcessor(12, 2, 7),
        theirs.InfNanRemoveLogitsProcessor(),
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(40),
        theirs.TopPLogitsWarper(0.8),
        theirs.MinPLogitsWarper(0.02),
    ]
    expected = LOGITS.clone()
    for processor in processors:
        expected = processor(IDS, expected)
    sampler = Sampler(config, IDS.tolist(), range(6), [7], 200, 1, torch.device("cpu"))
    got = sampling.temperature(sampler.process(LOGITS.clone()), 0.7)
    got = sampling.min_p(sampling.top_p(sampling.top_k(got, 40), 0.8), 0.02)
    torch.testing.assert_close(got.softmax(-1), expected.softmax(-1))
