"""Characters against `tokenizers` and `transformers`, through files."""

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.tokenizers.characters import train_characters
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.tokenizer import SpecialNames

LETTERS = "ab \n\r\t.é中🙂\u0301'\x00<|>end"
SPECIAL = ["<|endoftext|>"]


@pytest.fixture(scope="module", params=[False, True], ids=["without unk", "with unk"])
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("characters")
    names = SpecialNames(bos=SPECIAL[0], eos=SPECIAL[0])
    ours = train_characters([LETTERS, "oftx"], SPECIAL, unk=request.param, names=names)
    ours.save_pretrained(folder)
    return ours, folder


@pytest.mark.row("TOK-03", reference="tokenizers")
@settings(max_examples=150, deadline=None)
@given(text=st.text(LETTERS) | st.lists(st.sampled_from([*LETTERS, *SPECIAL, "Z", "ж"])).map("".join))
def test_the_library_encodes_identically(both, text):
    ours, folder = both
    if ours.unk_id is None:
        text = "".join(c for c in text if c in ours.vocab or c in SPECIAL[0])
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = ours.encode(text, allowed_special=True)
    assert reference.encode(text).ids == ids
    assert reference.decode(ids, skip_special_tokens=False) == ours.decode(ids)
    if all(character in ours.vocab for character in text):
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.row("TOK-03", reference="transformers")
def test_transformers_and_round_trip(both):
    from transformers import AutoTokenizer

    ours, folder = both
    theirs = AutoTokenizer.from_pretrained(folder)
    text = "ab\n\n  é🙂 中<|endoftext|>"
    assert theirs(text)["input_ids"] == ours.encode(text, allowed_special=True)
    assert theirs.decode(ours.encode(text)) == text
    again = load_tokenizer(folder)
    assert again.fingerprint() == ours.fingerprint()
    assert again.unk_id == ours.unk_id


@pytest.mark.row("TOK-03", reference="hand calculation")
def test_shakespeare_has_65_characters(shared):
    text = (shared / "data" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ours = train_characters([text])
    # nanoGPT's data/shakespeare_char prints the same 65 characters, in this order.
    assert "".join(ours.vocab) == "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert ours.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    assert ours.decode(ours.encode(text)) == text
