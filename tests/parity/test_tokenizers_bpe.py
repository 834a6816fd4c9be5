"""Byte-level BPE against `tokenizers`, `tiktoken` and `transformers`: training, encoding, files."""

import base64
import gzip
import json
import unicodedata
from pydoc_data.topics import topics

import pytest
import tiktoken
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from groundup.base.errors import CheckpointError
from groundup.tokenizers.bpe import BPEModel
from groundup.tokenizers.byte_bpe import ByteBPE
from groundup.tokenizers.byte_symbols import ALPHABET
from groundup.tokenizers.chat.render import CHATML
from groundup.tokenizers.hub import load_tokenizer, load_vocab_and_merges
from groundup.tokenizers.pretokenize import PATTERNS
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

# The references know other Unicode versions than Python: unassigned characters may be of another class there.
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn", "Co"))
LIKELY = st.sampled_from(
    [*" \n\t\r'sSdtTmlvreE019.,!<|>_-aZéß中文\u017f\u00a0\u200b\u0301\u2028\x1c\x85İ\u0661", "🙂", "  ", "'ll", "'S"]
)
TEXTS = st.text(ASSIGNED, max_size=60) | st.lists(LIKELY, max_size=60).map("".join)
EDGES = [
    "", " ", "\n", "\n\n", " \n ", "   a", "a   ", "a   b", "\t\t x", "\r\n\r\n", "Hello, world!",
    "don't DON'T I'LL we've",
    "someunknownPlace", "Akwirw ier", "<|endoftext|>", "a<|endoftext|>b", "<|endoftext|> <|endoftext|>", "<|endoftext|",
    "emoji 🙂👩‍👩‍👧 flags 🇩🇪", "中文没有空格", "\x00\x01\x7f\x80\xff", "é e\u0301", "1234567 12.5e-3",
    "\u00a0nbsp", "\ufeffbom",
    "naïve façade", "مرحبا بالعالم", "हिन्दी", "\x1c\x1d x", "x\x85y", "def f(x):\n    return x\n",
    "'", "''s", "\u017f'\u017f '\u017f", "\U0001d4b3\U0001d4b4", "\U0010ffff",
]  # fmt: skip
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


# English prose that comes with Python.
PROSE = "\n".join(topics[name] for name in sorted(topics))[:200_000]


@pytest.fixture(scope="module")
def texts(shared):
    folder = shared / "data"
    german = gzip.decompress((folder / "multi30k" / "val.de.gz").read_bytes()).decode()
    return {
        "shakespeare": (folder / "tinyshakespeare.txt").read_text(encoding="utf-8"),
        "german": german,
        "code": gzip.decompress((folder / "humaneval" / "HumanEval.jsonl.gz").read_bytes()).decode(),
        "languages": "\n".join(EDGES) * 3,
    }


@pytest.fixture(scope="module")
def gpt2(shared):
    folder = shared / "tokenizers"
    return load_vocab_and_merges(folder / "gpt2-encoder.json", folder / "gpt2-vocab.bpe")


@pytest.fixture(scope="module")
def tiktoken_gpt2(shared):
    lines = (shared / "tokenizers" / "gpt2.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    return tiktoken.Encoding(
        "gpt2", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def library(pattern):
    """The `tokenizers` library's byte-level BPE with one of our patterns."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated")
    tokenizer.pre_tokenizer = level if pattern == "gpt2" else pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_library(texts, size, special, pattern, min_frequency=0):
    tokenizer = library(pattern)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(reference):
    return [tuple(pair) for pair in json.loads(reference.to_str())["model"]["merges"]]


@pytest.mark.row("TOK-09", reference="tokenizers")
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("shakespeare", "gpt2"),
        ("german", "gpt4"),
        ("code", "llama3"),
        ("code", "gpt4"),
        *(("languages", p) for p in PATTERNS),
    ],
)
def test_training_gives_the_librarys_vocabulary_and_merges(texts, name, pattern):
    special = ["<|endoftext|>", "<|im_end|>"]
    corpus = texts[name].splitlines(keepends=True) if name == "german" else [texts[name]]
    ours = train_byte_bpe(corpus, 2000, special, pattern=pattern)
    reference = train_library(corpus, 2000, special, pattern)
    assert ours.vocab == reference.get_vocab()
    assert ours.merges == merges_of(reference)
    assert ours.encode(texts["languages"], allowed_special=True) == reference.encode(texts["languages"]).ids


@pytest.mark.row("TOK-09", reference="tokenizers")
@QUICK
@given(st.lists(st.text("ab c\n", max_size=40), min_size=1, max_size=6), st.integers(256, 300), st.integers(0, 3))
@example(["aaaa aaaaa aaa"], 262, 0)
@example(["ababab abcabc bcbc aabb"], 290, 0)
def test_training_breaks_ties_and_handles_overlaps_like_the_library(corpus, size, least):
    if not any(corpus):
        return
    ours = train_byte_bpe(corpus, size, min_frequency=least)
    reference = train_library(corpus, size, [], "gpt2", least)
    assert ours.merges == merges_of(reference)
    assert ours.vocab == reference.get_vocab()


@pytest.mark.row("TOK-10", reference="tiktoken")
@pytest.mark.parametrize("text", EDGES)
def test_gpt2_edge_cases(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode(text, allowed_special=True) == tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.decode(gpt2.encode(text)) == text


@pytest.mark.row("TOK-10", reference="tiktoken")
@pytest.mark.parametrize("name", ["shakespeare", "german", "code", "languages"])
def test_gpt2_whole_texts(gpt2, tiktoken_gpt2, texts, name):
    assert gpt2.encode(texts[name]) == tiktoken_gpt2.encode_ordinary(texts[name])


@pytest.mark.row("TOK-10", reference="tiktoken")
@QUICK
@given(TEXTS)
def test_gpt2_any_text(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode(text, allowed_special=True) == tiktoken_gpt2.encode(text, allowed_special="all")


@pytest.mark.row("TOK-10", reference="tiktoken")
@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "\ud83d\ude42 pair", "x\udfff\ud800"])
def test_gpt2_lone_surrogates(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


@pytest.mark.row("TOK-10", reference="tiktoken")
@QUICK
@given(st.lists(st.integers(0, 50256), max_size=20))
def test_gpt2_decodes_any_ids(gpt2, tiktoken_gpt2, ids):
    assert gpt2.decode(ids) == tiktoken_gpt2.decode(ids)
    assert [gpt2.token_bytes(number) for number in ids] == tiktoken_gpt2.decode_tokens_bytes(ids)


def test_gpt2_published_ids(gpt2):
    assert gpt2.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]
    assert gpt2.encode("\n") == [198]
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.bos_id) == (50257, 50256, 50256)


@pytest.mark.parametrize("pattern", list(PATTERNS))
@QUICK
@given(text=TEXTS)
def test_trained_vocabulary_encodes_as_in_tiktoken(trained, as_tiktoken, pattern, text):
    assert trained[pattern][0].encode(text) == as_tiktoken[pattern].encode_ordinary(text)


@pytest.fixture(scope="module")
def as_tiktoken(trained):
    made = {}
    for pattern, (ours, _) in trained.items():
        ranks = {ours.token_bytes(number): number for number in range(1, ours.vocab_size)}
        made[pattern] = tiktoken.Encoding(
            pattern, pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 0}
        )
    return made


@pytest.mark.row("TOK-09", reference="tokenizers")
@pytest.mark.parametrize("pattern", list(PATTERNS))
@QUICK
@given(text=TEXTS)
def test_saved_file_encodes_identically_in_the_library(trained, pattern, text):
    ours, reference = trained[pattern]
    assert ours.encode(text, allowed_special=True) == reference.encode(text).ids
    assert reference.decode(ours.encode(text), skip_special_tokens=False) == text


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = {}
    for pattern in PATTERNS:
        ours = train_byte_bpe(["\n".join(EDGES) * 3, PROSE], 1200, ["<|endoftext|>"], pattern=pattern)
        folder = tmp_path_factory.mktemp(pattern)
        ours.save_pretrained(folder)
        made[pattern] = (ours, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))
    return made


@pytest.mark.row("TOK-09", reference="transformers")
@pytest.mark.parametrize("model_type", [None, "llama", "gpt2"])
@pytest.mark.parametrize("pattern", ["gpt2", "llama3"])
def test_transformers_reads_the_folder(tmp_path, pattern, model_type):
    from transformers import AutoTokenizer

    names = SpecialNames(bos="<|endoftext|>", eos="<|endoftext|>", pad="<|pad|>")
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    ours = train_byte_bpe([PROSE], 800, special, pattern=pattern, names=names, chat_template=CHATML)
    ours.save_pretrained(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    for text in [*EDGES, PROSE[:20000]]:
        ids = ours.encode(text, allowed_special=True)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert theirs.chat_template == CHATML

    theirs.save_pretrained(tmp_path / "theirs")
    again = load_tokenizer(tmp_path / "theirs")
    assert again.fingerprint() == ours.fingerprint()
    assert again.chat_template == CHATML


@pytest.mark.row("TOK-10", reference="transformers")
def test_hugging_face_pair_of_files(shared, tmp_path, gpt2, texts):
    from transformers import AutoTokenizer

    gpt2.save_pretrained(tmp_path / "ours")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs(texts["code"][:50000])["input_ids"] == gpt2.encode(texts["code"][:50000])

    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "vocab.json").write_bytes((shared / "tokenizers" / "gpt2-encoder.json").read_bytes())
    (pair / "merges.txt").write_bytes((shared / "tokenizers" / "gpt2-vocab.bpe").read_bytes())
    assert load_tokenizer(pair).fingerprint() == gpt2.fingerprint() == load_tokenizer(tmp_path / "ours").fingerprint()


def test_gpt_neox_file(shared, texts, tmp_path):
    path = shared / "tokenizers" / "gpt-neox-20b.json"
    ours, reference = load_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    assert ours.vocab == reference.get_vocab()
    for text in [*EDGES, texts["code"], texts["german"], "e\u0301 a\u030a\u0323 \u1e9b\u0323", "\u0301" * 5000]:
        if unicodedata.is_normalized("NFC", text) or "\u0301" in text or "\u0323" in text:
            assert ours.encode(text, allowed_special=True) == reference.encode(text).ids
    ours.save_pretrained(tmp_path)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert saved.encode(texts["code"]).ids == ours.encode(texts["code"])
    assert load_tokenizer(tmp_path).fingerprint() == ours.fingerprint()


def test_ignore_merges(tmp_path):
    reference = train_library(["hello hello hell low"], 262, ["<s>"], "gpt2")
    spec = json.loads(reference.to_str())
    spec["model"]["vocab"]["hello"] = 300
    spec["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode("hello hello hellos") == theirs.encode("hello hello hellos").ids
    assert ours.encode("hello") == [300]


def test_old_merge_spelling(tmp_path):
    reference = train_library(["hello hello hell low"], 264, [], "gpt2")
    spec = json.loads(reference.to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    new = load_tokenizer(tmp_path)
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    assert load_tokenizer(tmp_path).fingerprint() == new.fingerprint()


def test_template_post_processor_names_bos(tmp_path):
    from tokenizers import processors

    reference = train_library(["hello hello hell low"], 264, ["<|begin|>", "<|end|>"], "llama3")
    template = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
    )
    reference.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode("hello", bos=True, eos=True) == reference.encode("hello").ids
    ours.save_pretrained(tmp_path / "again")
    again = tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert again.encode("hello").ids == reference.encode("hello").ids


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.update(post_processor={"type": "Wrap"}), "Wrap"),
        (lambda s: s["model"].update(dropout=0.1), "dropout"),
        (lambda s: s["model"].update(type="Neural"), "Neural"),
        (lambda s: s["model"].update(novelty=1), "novelty"),
        (lambda s: s.update(novelty=1), "novelty"),
        (lambda s: s["added_tokens"][0].update(novelty=1), "novelty"),
        (lambda s: s["pre_tokenizer"].update(novelty=1), "novelty"),
        (lambda s: s["decoder"].update(novelty=1), "novelty"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, change, named):
    spec = json.loads(train_library(["hello"], 258, ["<s>"], "gpt2").to_str())
    change(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match=named):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("merges", [[("a", "b"), ("b", "c"), ("a", "b")], [("b", "c"), ("a", "b"), ("b", "c")]])
def test_of_a_repeated_merge_the_last_place_counts(tmp_path, merges):
    """In byte-level BPE and in BPE over characters; a file keeps one of each."""
    vocab = {symbol: number for number, symbol in enumerate([*ALPHABET, "ab", "bc"])}
    reference = tokenizers.Tokenizer(models.BPE(vocab, merges))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    expected = reference.encode("abc").tokens
    assert expected == (["a", "bc"] if merges[0] == ("a", "b") else ["ab", "c"])
    ours, characters = ByteBPE(vocab, merges), BPEModel(vocab, merges)
    assert [ours.token(number) for number in ours.encode("abc")] == expected
    assert [vocab[token] for token in expected] == [number for number, _ in characters.cut("abc")]
    assert ours.merges == characters.merges == merges[1:]
    ours.save_pretrained(tmp_path)
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("abc").tokens == expected


def test_ends_of_tokens_whatever_the_order_and_length():
    """A merge that comes before those that make its parts, and a text of many words that comes as one."""
    vocab = {token: number for number, token in enumerate(["\u2581", "a", "b", "c", "ab", "abc", "\u2581ab"])}
    merges = [("ab", "c"), ("\u2581", "ab"), ("a", "b")]
    ours, theirs = BPEModel(vocab, merges), tokenizers.Tokenizer(models.BPE(vocab, merges))
    for word in ("abc", "\u2581abc\u2581cab", "\u2581ab" * 40 + "\u2581abcc"):
        encoding = theirs.encode(word)
        ends = [end for _, end in encoding.offsets]
        assert ours.cut(word) == list(zip(encoding.ids, ends, strict=True))
