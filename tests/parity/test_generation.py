import pytest
import torch
import transformers
from transformers.generation import logits_process as theirs

from groundup.generation import generate as module
from groundup.generation import sampling
from groundup.generation.config import SamplingConfig
from groundup.generation.generate import generate, stream
from groundup.generation.sampler import Sampler
from groundup.models.hub import load_model
from standin import Bytes

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


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    """The same tiny random model, theirs and ours."""
    torch.manual_seed(0)
    if request.param == "gpt2":
        config = transformers.GPT2Config(vocab_size=258, n_positions=128, n_embd=32, n_layer=2, n_head=4)
        reference = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=258,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
        reference = transformers.LlamaForCausalLM(config)
    for parameter in reference.parameters():  # far from uniform, so that the greedy text is not one token repeated
        parameter.data *= 4 if parameter.ndim > 1 else 1
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    return reference.eval(), load_model(folder)


PROMPTS = [[97, 98, 99], [5] * 40 + [7, 9, 200], [257], list(range(60, 80))]


def their_greedy(reference, prompts, steps, **options):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    found = reference.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=steps, eos_token_id=256, pad_token_id=0, **options
    )
    return [row.tolist()[: row.tolist().index(256) + 1] if 256 in row else row.tolist() for row in found[:, width:]]


@pytest.mark.row("INF-01", reference="transformers")
@pytest.mark.row("INF-09", reference="transformers")
@pytest.mark.parametrize("chunk", [1024, 7])
def test_greedy_text_with_left_padding(pair, chunk, monkeypatch):
    monkeypatch.setattr(module, "PREFILL_CHUNK", chunk)
    reference, model = pair
    options = {"temperature": 0, "max_new_tokens": 40}
    together = [result.ids for result in generate(model, Bytes(), PROMPTS, **options)]
    assert together == [their_greedy(reference, [prompt], 40)[0] for prompt in PROMPTS]
    assert together == their_greedy(reference, PROMPTS, 40)
    assert together == [generate(model, Bytes(), prompt, **options)[0].ids for prompt in PROMPTS]
    assert len({tuple(ids) for ids in together}) == len(PROMPTS)
    assert max(len(set(ids)) for ids in together) > 5


@pytest.mark.row("INF-06", reference="transformers")
def test_greedy_text_with_processors(pair):
    reference, model = pair
    # one prompt: in a batch transformers counts the padding as seen
    for prompt in PROMPTS:
        options = {
            "repetition_penalty": 1.3,
            "min_new_tokens": 5,
            "logit_bias": {256: 9.0, 32: 0.3},
            "max_new_tokens": 30,
        }
        ours = generate(model, Bytes(), prompt, temperature=0, **options)[0]
        bias = [[[256], 9.0], [[32], 0.3]]
        theirs = their_greedy(reference, [prompt], 30, repetition_penalty=1.3, min_new_tokens=5, sequence_bias=bias)
        assert ours.ids == theirs[0]


@pytest.mark.row("INF-09", reference="property: batched equals one by one")
@pytest.mark.row("INF-08", reference="property: joined pieces equal generate's text")
def test_sampled_text_in_a_batch_alone_and_streamed(pair):
    model = pair[1]
    options = {
        "temperature": 0.9,
        "top_p": 0.95,
        "max_new_tokens": 30,
        "seed": 11,
        "stop": ["a", "é"],
        "stop_ids": list(range(0, 258, 16)),
    }
    together = generate(model, Bytes(), PROMPTS, **options)
    for prompt, result in zip(PROMPTS, together, strict=True):
        assert generate(model, Bytes(), prompt, **options)[0] == result
        assert "".join(stream(model, Bytes(), prompt, **options)) == result.text
    assert len({len(result.ids) for result in together}) > 1  # rows left the batch at different times


def test_full_context(pair):
    reference, model = pair
    prompt = list(range(100))
    ours = generate(model, Bytes(), prompt, temperature=0, ignore_eos=True)[0]
    assert ours.prompt_tokens + len(ours.ids) == 128
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "max_new_tokens": 28, "min_new_tokens": 0, "eos_token_id": 10**6, "pad_token_id": 0}
    found = reference.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert ours.ids == found[0, 100:].tolist()
