"""The batches that the book "Build a Large Language Model (From Scratch)" prints for its short story."""

import base64

import pytest

from groundup.data.config import DataConfig
from groundup.data.load import load_data
from groundup.data.loader import Loader, in_order
from groundup.data.packing import pack
from groundup.data.tokens import tokens_in_memory


class GPT2:
    """GPT-2's tokenizer by tiktoken, from its published ranks."""

    vocab_size, eos_id, pad_id = 50257, 50256, None

    def __init__(self, path):
        import tiktoken

        ranks = dict(line.split() for line in path.read_bytes().splitlines())
        self.encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in ranks.items()},
            special_tokens={"<|endoftext|>": 50256},
        )

    def encode_batch(self, texts):
        return [self.encoding.encode_ordinary(text) for text in texts]

    def fingerprint(self):
        return "gpt2"


@pytest.fixture(scope="module")
def tokenizer(shared):
    return GPT2(shared / "tokenizers" / "gpt2.tiktoken")


@pytest.fixture(scope="module")
def story(shared):
    return shared / "data" / "llms-from-scratch" / "the-verdict.txt"


@pytest.fixture(scope="module")
def tokens(tokenizer, story):
    return tokens_in_memory(tokenizer.encode_batch([story.read_text(encoding="utf-8")]), vocab_size=50257)


@pytest.mark.row("DAT-01", reference="published: LLMs-from-scratch chapter 2")
def test_published_batches(tokens):
    assert len(tokens) == 5145
    one = Loader(pack(tokens, 4, stride=1), 1, sampling="sequential")
    first, second = next(one), next(one)
    assert first["ids"].tolist() == [[40, 367, 2885, 1464]]
    assert first["labels"].tolist() == [[367, 2885, 1464, 1807]]
    assert second["ids"].tolist() == [[367, 2885, 1464, 1807]]
    assert second["labels"].tolist() == [[2885, 1464, 1807, 3619]]

    eight = next(Loader(pack(tokens, 4, stride=4), 8, sampling="sequential"))
    assert eight["ids"].tolist() == [
        [40, 367, 2885, 1464],
        [1807, 3619, 402, 271],
        [10899, 2138, 257, 7026],
        [15632, 438, 2016, 257],
        [922, 5891, 1576, 438],
        [568, 340, 373, 645],
        [1049, 5975, 284, 502],
        [284, 3285, 326, 11],
    ]
    assert eight["labels"].tolist() == [
        [367, 2885, 1464, 1807],
        [3619, 402, 271, 10899],
        [2138, 257, 7026, 15632],
        [438, 2016, 257, 922],
        [5891, 1576, 438, 568],
        [340, 373, 645, 1049],
        [5975, 284, 502, 284],
        [3285, 326, 11, 287],
    ]


@pytest.mark.row("DAT-01", reference="torch")
@pytest.mark.parametrize(("length", "stride"), [(4, 1), (4, 4), (8, 2), (256, 128), (1024, 1024)])
def test_same_as_a_torch_dataset(tokens, length, stride):
    """Against torch's own DataLoader over torch's own `unfold` of the token line."""
    import torch

    line = torch.tensor(tokens.document(0))
    inputs, targets = line[:-1].unfold(0, length, stride), line[1:].unfold(0, length, stride)
    theirs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=5)
    for batch, (x, y) in zip(in_order(pack(tokens, length, stride=stride), 5), theirs, strict=True):
        assert torch.equal(batch["ids"], x)
        assert torch.equal(batch["labels"], y)


@pytest.mark.row("DAT-02", reference="published: LLMs-from-scratch chapter 5")
def test_published_split(tokenizer, story):
    """90 % of the characters for training: 4,608 tokens in rows of 256 to train on and 512 to validate."""
    data = load_data(DataConfig(source=str(story), context_length=256), tokenizer)
    (train,), (validation,) = data.train.rows, data.validation.values()
    assert (len(train) * 256, len(validation) * 256) == (4608, 512)
