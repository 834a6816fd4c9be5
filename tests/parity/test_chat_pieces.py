"""Conversations in tokenizers that put a space before a first word, or whose control tokens swallow spaces.

The tokenizer is the `tokenizers` library's own behind our interface, so what is tested is how the pieces of a
conversation are put together: the ids are those that transformers gets from the whole text.
"""

from dataclasses import dataclass

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.chat import builtin as chat_templates
from groundup.tokenizers.chat.pieces import encoder_of
from groundup.tokenizers.chat.render import render_chat
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

TEXT = ["Hello there, who are you? I am a model.\n[INST] [/INST] <<SYS>> USER: ASSISTANT: system user assistant 1"] * 20
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<unk>"]
TALK = [
    {"role": "user", "content": "Hello there"},
    {"role": "assistant", "content": "I am a model."},
    {"role": "user", "content": " who\n\nare you?"},
    {"role": "assistant", "content": "Hello"},
]


@dataclass(frozen=True)
class Flagged(AddedToken):
    """An added token that takes the spaces beside it to itself."""

    lstrip: bool = False
    rstrip: bool = False


class Borrowed(Tokenizer):
    """The library's tokenizer behind our interface."""

    kind = "borrowed"

    def __init__(self, theirs):
        flags = theirs.get_added_tokens_decoder()
        added = [Flagged(t.content, i, t.special, t.normalized, t.lstrip, t.rstrip) for i, t in flags.items()]
        super().__init__(theirs.get_vocab(), added, names=SpecialNames(bos="<s>", eos="</s>", unk="<unk>"))
        self.theirs = theirs

    def encode(self, text, *, bos=False, eos=False, allowed_special=False):
        self.theirs.encode_special_tokens = not allowed_special
        try:
            return self.theirs.encode(text, add_special_tokens=False).ids
        finally:
            self.theirs.encode_special_tokens = False

    def decode(self, ids, *, skip_special=False):
        return self.theirs.decode(list(ids), skip_special_tokens=skip_special)


def metaspace(scheme):
    return pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme)


KINDS = {
    "always": (*metaspace("always"), {}),
    "first": (*metaspace("first"), {}),
    "never": (*metaspace("never"), {}),
    "bytes": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), {}),
    "prefix": (pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel(), {}),
    "rstrip": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), {"rstrip": True}),
    "both": (*metaspace("first"), {"rstrip": True, "lstrip": True}),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    """Our view of the tokenizer, and transformers'."""
    from transformers import PreTrainedTokenizerFast

    before, after, flags = KINDS[request.param]
    theirs = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    theirs.pre_tokenizer, theirs.decoder = before, after
    theirs.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>"], show_progress=False))
    theirs.add_special_tokens([tokenizers.AddedToken(token, special=True, **flags) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=theirs, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return Borrowed(theirs), fast, request.param


@pytest.mark.parametrize("name", ["chatml", "llama-2", "vicuna", "phi-3"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ids_equal_those_of_the_whole_text(pair, name, count):
    ours, theirs, kind = pair
    ours.chat_template = theirs.chat_template = chat_templates.source(name)
    found = render_chat(ours, TALK[:count])
    expected = theirs.apply_chat_template(TALK[:count], return_dict=True, return_assistant_tokens_mask=True)
    assert found.ids == expected["input_ids"]
    if kind != "both":  # there the border of a block lies inside a token's own spaces
        assert found.mask == expected["assistant_masks"]


@pytest.mark.parametrize("name", ["chatml", "llama-2", "vicuna"])
def test_a_prompt_begins_what_it_is_answered_with(pair, name):
    ours, _, _ = pair
    ours.chat_template = chat_templates.source(name)
    prompt = render_chat(ours, TALK[:3], add_generation_prompt=True).ids
    assert render_chat(ours, TALK).ids[: len(prompt)] == prompt


def test_spelled_control_tokens_stay_text(pair):
    ours, _, _ = pair
    ours.chat_template = chat_templates.source("chatml")
    found = render_chat(ours, [{"role": "user", "content": "a<|im_end|> </s>b"}]).ids
    assert found.count(ours.vocab["<|im_end|>"]) == 1
    assert found.count(ours.vocab["</s>"]) == 0


def test_how_a_tokenizer_treats_first_words_is_found_out(pair):
    ours, _, kind = pair
    encoder = encoder_of(ours)
    spaced = {"always": (True, True), "first": (True, False), "both": (True, False), "prefix": (True, True)}
    first, after = spaced.get(kind, (False, False))
    assert (encoder.start("am") != encoder.go_on("am")) == first
    assert (encoder.after_control("am") != encoder.go_on("am")) == after
    assert ours.decode(encoder.go_on(" am")).strip() == "am"
