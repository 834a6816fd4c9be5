"""The model that comes with the package: small, whole, and better than counting."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from groundup import generate, load_model, load_tokenizer
from groundup.base.folders import builtin_folders
from groundup.data.builtin import open_corpus
from groundup.evaluation.baselines.kneser_ney import KneserNey
from groundup.evaluation.perplexity import measure


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", dtype="float32"), load_tokenizer("tiny")


def test_it_is_small_and_whole():
    folder = builtin_folders()["tiny"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_500_000
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names


def test_transformers_reads_it_equally(tiny):
    model, tokenizer = tiny
    folder = builtin_folders()["tiny"]
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = "One spring, in the village of Bromby, there lived a farmer."
    ids = tokenizer.encode(text)
    assert AutoTokenizer.from_pretrained(folder).encode(text) == ids
    with torch.no_grad():
        assert_close(model(torch.tensor([ids])), theirs(torch.tensor([ids])).logits)


def test_it_beats_a_five_gram_model_on_stories_of_worlds_it_never_saw(tiny):
    model, tokenizer = tiny
    unseen = [document.text for document in open_corpus("stories", seed=5, split="test", documents=12)]
    training = [document.text.encode() for document in open_corpus("stories", seed=0, documents=400)]
    size = sum(len(text.encode()) for text in unseen)
    five_gram = KneserNey(order=5).fit(training)
    counting = sum(five_gram.bits(text.encode()) for text in unseen) / size
    assert measure(model, tokenizer, unseen).bits_per_byte < counting


def test_the_same_seed_writes_the_same_text_and_ends_its_answers(tiny):
    model, tokenizer = tiny
    prompt = "User: Tell me a story about a fox.\n\nAssistant:"
    one, again = (generate(model, tokenizer, prompt, max_new_tokens=40, seed=7)[0].text for _ in range(2))
    assert one == again
    assert model.config.kept["eos_token_id"] == tokenizer.eos_id
