"""The compiled loops against `regex`, tiktoken and `tokenizers`, and against the readable forms beside them."""

import base64
import itertools
import json
import pickle
import random
import sys
from collections import Counter

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from groundup.base.errors import UsageError
from groundup.data.builtin import pystdlib
from groundup.tokenizers import byte_bpe, kernels
from groundup.tokenizers.byte_symbols import ALPHABET
from groundup.tokenizers.hub import load_tokenizer, load_vocab_and_merges
from groundup.tokenizers.merging import _scan, apply_merges
from groundup.tokenizers.prefix_tree import PrefixTree
from groundup.tokenizers.pretokenize import PATTERNS, PreTokenizer
from groundup.tokenizers.tokenizer import SpecialNames, without_surrogates
from groundup.tokenizers.training import byte_bpe as bpe_trainer
from groundup.tokenizers.training import counting
from groundup.tokenizers.training.byte_bpe import Learner, learn_merges, train_byte_bpe
from groundup.tokenizers.training.splitting import ByPattern
from nasty_corpus import nasty_lines

pytest.importorskip("numba")

from groundup.tokenizers.compiled import CompiledCutter, CompiledEncoder, _pair_table, portions
from groundup.tokenizers.training import compiled as compiled_training
from groundup.tokenizers.training.compiled import CompiledCounter, CompiledLearner, Pieces

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn", "Co"))
LIKELY = st.sampled_from(
    [*" \n\t\r'sSdtTmlvreE019.,!aZéß中\u017f\u00a0\u0301\u2028\x1c\x85\u0661", "🙂", "  ", "'ll", "'S", "ab"]
)
TEXTS = st.text(ASSIGNED, max_size=60) | st.lists(LIKELY, max_size=120).map("".join)


@pytest.fixture
def at_once(monkeypatch):
    """Compiled from the first character on, texts of any length."""
    monkeypatch.setattr(byte_bpe, "MUCH", 0)
    monkeypatch.setattr(byte_bpe, "SHORT_TEXT", -1)


def cut(pattern, texts):
    """The pieces of each text, by the compiled cutter."""
    data, ends, pieces = CompiledCutter(PATTERNS[pattern])(texts)
    starts, firsts = [0, *ends.tolist()], [0, *pieces.tolist()]
    raw = data.tobytes()
    found = [raw[a:b].decode() for a, b in itertools.pairwise(starts)]
    return [found[a:b] for a, b in itertools.pairwise(firsts)]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_every_code_point_is_cut_as_regex_cuts_it(pattern):
    """Beside letters, digits, signs, spaces, line ends and apostrophes."""
    codes = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    for size in range(0, len(codes), 100_000):
        text = "".join(f"a{c}a1{c} {c}{c}\n{c}!{c}'{c}  " for c in codes[size : size + 100_000])
        assert cut(pattern, [text]) == [regex.findall(PATTERNS[pattern], text)]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_every_neighbourhood_is_cut_as_regex_cuts_it(pattern):
    """All texts of up to four characters that rules tell apart, and of up to six of the main classes."""
    of_rules = "aslrevmtdSLRE中\u017f1½ \t\u00a0\n\r'!\u0301🙂"
    texts = ["".join(t) for size in range(5) for t in itertools.product(of_rules, repeat=size)]
    texts += ["".join(t) for size in (5, 6) for t in itertools.product("aé1 \n'!", repeat=size)]
    find = regex.compile(PATTERNS[pattern]).findall
    for place in range(0, len(texts), 50_000):
        part = texts[place : place + 50_000]
        assert cut(pattern, part) == [find(text) for text in part]


@pytest.mark.parametrize("pattern", list(PATTERNS))
@QUICK
@given(texts=st.lists(TEXTS, max_size=5))
def test_any_texts_are_cut_as_regex_cuts_them(pattern, texts):
    assert cut(pattern, texts) == [regex.findall(PATTERNS[pattern], text) for text in texts]
    assert cut(pattern, texts) == [PreTokenizer(pattern).split(text) for text in texts]


class Vocabulary:
    """A tokenizer of ours, in readable and compiled form, and the references that have the same vocabulary."""

    def __init__(self, ours, *references):
        self.ours, self.references = ours, references
        self.compiled = ours._compile()

    def check(self, text):
        ids = self.ours.encode(text)
        assert self.compiled.all(list(self.ours.added.cut(without_surrogates(text), False)) or [""]) == [ids]
        for reference in self.references:
            assert reference(text) == ids
        assert self.ours.decode(ids) == text


def as_tiktoken(ours, ranks, special):
    encoding = tiktoken.Encoding("x", pat_str=ours.pattern, mergeable_ranks=ranks, special_tokens=special)
    return encoding.encode_ordinary


@pytest.fixture(scope="module")
def lines(shared):
    return nasty_lines(shared)


@pytest.fixture(scope="module")
def gpt2(shared):
    folder = shared / "tokenizers"
    ours = load_vocab_and_merges(folder / "gpt2-encoder.json", folder / "gpt2-vocab.bpe")
    rows = (line.split() for line in (folder / "gpt2.tiktoken").read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
    reference = tokenizers.Tokenizer(models.BPE(ours.model_vocab, ours.merges))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Vocabulary(ours, as_tiktoken(ours, ranks, {"<|endoftext|>": 50256}), lambda text: reference.encode(text).ids)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """For each pattern a vocabulary of our own, read by `tokenizers` from our file, and by tiktoken as ranks."""
    texts = [document.text for document in itertools.islice(pystdlib.documents(), 40)]
    made = {}
    for pattern in PATTERNS:
        ours = train_byte_bpe(
            [*texts, "Größe 中文 été 🙂 \u0661\u0662 \u00a0 " * 20], 1500, ["<|end|>"], pattern=pattern
        )
        folder = tmp_path_factory.mktemp(pattern)
        ours.save_pretrained(folder)
        reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        ranks = {ours.token_bytes(number): number for number in range(1, ours.vocab_size)}
        made[pattern] = Vocabulary(
            ours, as_tiktoken(ours, ranks, {"<|end|>": 0}), lambda text, r=reference: r.encode(text).ids
        )
    return made


@pytest.mark.row("TOK-10", reference="tiktoken, tokenizers")
def test_gpt2_ids_on_nasty_lines(gpt2, lines):
    for line in lines:
        gpt2.check(line)
    assert gpt2.compiled(lines) == [gpt2.ours.encode(line) for line in lines]
    assert len(lines) >= 10_000


@pytest.mark.row("TOK-10", reference="tiktoken, tokenizers")
@QUICK
@given(text=TEXTS)
def test_gpt2_ids_of_any_text(gpt2, text):
    gpt2.check(text)


@pytest.mark.row("TOK-09", reference="tokenizers, tiktoken")
@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_trained_vocabularies_on_nasty_lines(trained, lines, pattern):
    for line in lines:
        if "<|end|>" not in line:
            trained[pattern].check(line)


@pytest.mark.row("TOK-09", reference="tokenizers, tiktoken")
@pytest.mark.parametrize("pattern", list(PATTERNS))
@QUICK
@given(text=TEXTS)
def test_trained_vocabularies_on_any_text(trained, pattern, text):
    trained[pattern].check(text)


def test_normal_form_and_added_tokens(shared, lines, at_once):
    """GPT-NeoX: NFC, runs of spaces as added tokens. One by one and in threads."""
    path = shared / "tokenizers" / "gpt-neox-20b.json"
    reference = tokenizers.Tokenizer.from_file(str(path))
    ours = load_tokenizer(path)
    assert ours.compiled(0) is not None
    expected = [one.ids for one in reference.encode_batch(lines)]
    assert ours.encode_batch(lines, allowed_special=True) == expected
    assert [ours.encode(line, allowed_special=True) for line in lines] == expected


def test_whole_pieces_come_before_merges(tmp_path, at_once):
    """ignore_merges (Llama 3): a piece that is a token, to which no merges lead, is that token."""
    ours = train_byte_bpe(["hello hello hell low"], 262, ["<s>"], pattern="llama3")
    ours.save_pretrained(tmp_path)
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    spec["model"]["vocab"] |= {"hello": 300, "Ġextraordinary": 301}
    spec["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    changed = load_tokenizer(tmp_path)
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "hello hello hellos extraordinary xhello extraordinarys"
    assert changed._compile().one(text) == changed.encode(text) == reference.encode(text).ids
    assert 301 in changed.encode(text)


def test_tokens_that_no_merge_makes_are_not_looked_up_as_a_whole(at_once):
    """A merge order in which "abc" is never reached, although it is in the vocabulary."""
    vocab = {symbol: number for number, symbol in enumerate(ALPHABET)} | {"bc": 256, "ab": 257, "abc": 258}
    ours = byte_bpe.ByteBPE(vocab, [("b", "c"), ("a", "b"), ("ab", "c")])
    reference = tokenizers.Tokenizer(models.BPE(vocab, [("b", "c"), ("a", "b"), ("ab", "c")]))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert ours.encode("abc ab bc") == reference.encode("abc ab bc").ids
    assert ours.encode("abc") == [ours.vocab["a"], 256]


@QUICK
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=120), st.randoms(use_true_random=False))
def test_merging_equals_the_readable_form(letters, rng):
    """Random merges, in words on both sides of the border between scan and heap."""
    tokens, merges = ["a", "b", "c"], {}
    for rank in range(20):
        pair = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        joined = tokens[pair[0]] + tokens[pair[1]]
        if pair not in merges and joined not in tokens:
            merges[pair] = (rank, len(tokens))
            tokens.append(joined)
    byte_ids = [-1] * 256
    byte_ids[97:100] = [0, 1, 2]
    encoder = CompiledEncoder(
        PATTERNS["gpt2"], byte_ids, merges, {number: token.encode() for number, token in enumerate(tokens)}
    )
    word = "".join(letters)
    expected = apply_merges([byte_ids[ord(letter)] for letter in letters], merges)
    assert encoder([word, "", word]) == [expected, [], expected]
    assert encoder.one(word + word) == apply_merges([byte_ids[ord(letter)] for letter in word + word], merges)


def test_both_compiled_ways_to_merge_agree_with_the_readable_scan():
    """Ranks in any order, so that an entry of the heap outdated by a neighbour's merge would merge too early."""
    from groundup.tokenizers.kernels.encoding import scan, with_heap

    generator = random.Random(0)
    for _ in range(300):
        pairs = generator.sample(list(itertools.product(range(10), repeat=2)), 60)
        merges = {pair: (rank, 4 + rank % 6) for rank, pair in enumerate(pairs)}
        ids = generator.choices(range(4), k=generator.randint(1, 60))
        expected, table = _scan(list(ids), merges), _pair_table(merges)
        by_scan, by_heap, size = np.array(ids, np.int32), np.array(ids, np.int32), len(ids)
        left = scan(by_scan, size, np.empty(size, np.int64), *table)
        assert by_scan[:left].tolist() == expected
        assert by_heap[: with_heap(by_heap, size, *table)].tolist() == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@pytest.mark.parametrize(
    "text",
    [
        "a" * 10**6, " " * 10**6, "\u0301" * 10**5, "ab" * 500_000, "a\n" * 500_000, "'s" * 500_000, " \n" * 500_000,
        "1" * 10**6, "\t " * 500_000 + "x", "中" * 300_000, "e" + "\u0301" * 10**5, "🙂" * 100_000, " a" * 500_000,
    ],
    ids=[
        "a", "spaces", "accents", "ab", "lines of a", "'s", "lines of spaces", "digits", "tabs and spaces", "Chinese",
        "an accented e", "emoji", "words of a",
    ],
)  # fmt: skip
def test_long_runs_take_linear_time(trained, pattern, text):
    """Quadratic time would be hours: 10^12 steps."""
    ours = trained[pattern].ours
    ids = trained[pattern].compiled.one(text)
    assert ours.decode(ids) == text
    assert ours.encode(text) == ids


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["<" * 10**6, "<|reserved_" * 10**5, "The cat sat. " * 10**5])
def test_thousands_of_special_tokens_cost_no_more_than_a_few(text):
    tree = PrefixTree([f"<|reserved_{number}|>" for number in range(5000)])
    assert list(tree.find(text)) == []
    assert list(tree.find(text + "<|reserved_4999|>")) == [(len(text), len(text) + 17)]


@QUICK
@given(st.lists(st.text("ab-]^", min_size=1, max_size=5), max_size=12), st.text("ab-]^", max_size=60))
def test_the_tree_finds_what_a_longest_first_alternation_finds(spellings, text):
    pattern = regex.compile("|".join(map(regex.escape, sorted(spellings, key=len, reverse=True))))
    expected = [match.span() for match in pattern.finditer(text)] if spellings else []
    assert list(PrefixTree(spellings).find(text)) == expected


def test_batches_in_threads(trained, at_once, monkeypatch):
    """Portions of several texts, BOS and EOS, special tokens in the text, empty and lone-surrogate texts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("groundup.tokenizers.compiled.PORTION", 100)
    monkeypatch.setattr(portions, "__defaults__", (100,))
    ours = trained["gpt4"].ours
    texts = ["", "a", "<|end|>", "x<|end|>y" * 9, "\ud800 lone", "word " * 100, "it's 12345\n" * 30] * 20
    for allowed in (False, True):
        assert ours.encode_batch(texts, allowed_special=allowed) == [
            ours.encode(text, allowed_special=allowed) for text in texts
        ]
    assert ours.encode_batch([]) == []
    with pytest.raises(UsageError, match="no BOS"):
        ours.encode_batch(["a"], bos=True)
    named = train_byte_bpe(["a b"], 260, ["<|end|>", "<|begin|>"], names=SpecialNames(bos="<|begin|>", eos="<|end|>"))
    for bos, eos in itertools.product((False, True), repeat=2):
        expected = [[1] * bos + named.encode(text) + [0] * eos for text in texts]
        assert named.encode_batch(texts, bos=bos, eos=eos) == expected
        assert super(type(named), named).encode_batch(texts, bos=bos, eos=eos) == expected
    assert pickle.loads(pickle.dumps(ours)).encode("it's") == ours.encode("it's")


def test_short_uses_load_nothing():
    """A fresh interpreter encodes and trains without numba."""
    import subprocess

    code = (
        "import sys; from groundup.tokenizers.training.byte_bpe import train_byte_bpe;"
        "t = train_byte_bpe(['hello hello'] * 100, 300); t.encode('hello' * 100); t.encode_batch(['hello'] * 100);"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Counting.

WORDS = ByPattern("gpt2")


@pytest.fixture(scope="module")
def documents():
    return [document.text for document in itertools.islice(pystdlib.documents(), 120)]


@pytest.fixture(scope="module")
def expected(documents):
    return Counter(itertools.chain.from_iterable(map(WORDS, documents)))


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(counting, "MUCH", 1000)
    monkeypatch.setattr(counting, "WORTH_A_PROCESS", 1000)
    monkeypatch.setattr(counting, "PORTION", 20_000)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_count_what_one_counts(documents, expected, small_portions, workers):
    found = counting.count_pieces(iter(documents), WORDS, workers=workers)
    assert isinstance(found, Pieces)
    assert found.as_dict() == expected
    assert Pieces.of(expected).as_dict() == expected


@pytest.mark.parametrize("pattern", ["gpt2", r"\w+|\W"])
def test_processes_count_what_one_counts(documents, small_portions, monkeypatch, pattern):
    monkeypatch.setattr(kernels, "available", lambda: False)
    cutter = ByPattern(pattern)
    found = counting.count_pieces(iter(documents), cutter, workers=2)
    assert found == Counter(itertools.chain.from_iterable(map(cutter, documents)))


def test_where_no_process_can_be_started(documents, expected, small_portions, monkeypatch, capsys):
    monkeypatch.setattr(kernels, "available", lambda: False)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert counting.count_pieces(documents, WORDS, workers=2) == expected
    assert "counting in this one" in capsys.readouterr().err


def test_an_error_in_the_stream_ends_the_workers(documents, small_portions):
    def stream():
        yield from documents
        raise ValueError("the disk is gone")

    with pytest.raises(ValueError, match="the disk is gone"):
        counting.count_pieces(stream(), WORDS, workers=2)


def test_counting_reads_the_stream_as_it_goes(documents, small_portions):
    """Never more than a few portions ahead of what has been counted: here counting has begun when the stream ends."""
    waiting = []

    def stream():
        for number, text in enumerate(documents):
            waiting.append(number)
            yield text

    counter = counting._portions(stream(), WORDS)
    next(counter)
    assert len(waiting) < len(documents) / 2


@QUICK
@given(st.lists(st.text("ab é\n", max_size=50), max_size=8))
def test_tables_grow(texts):
    """A counter that begins with room for two pieces and a few bytes."""
    counter = CompiledCounter(PATTERNS["gpt2"])
    counter.keys, counter.numbers = np.zeros(4, np.uint64), np.zeros(4, np.int32)
    counter.spelled, counter.starts = np.empty(3, np.uint8), np.zeros(3, np.int64)
    counter.counts = np.zeros(2, np.int64)
    counter.add(texts)
    counter.add(texts[:1])
    assert counter.result().as_dict() == Counter(itertools.chain.from_iterable(map(WORDS, [*texts, *texts[:1]])))


# Learning.


def both_ways(words, size, least, special):
    """Merges and vocabulary of the readable and of the compiled learner."""
    vocab = {token: number for number, token in enumerate([*special, *ALPHABET])}
    compiled, readable = dict(vocab), dict(vocab)
    fast = CompiledLearner(Pieces.of(words), compiled, size, least, frozenset(special))
    while fast.learn(3):
        pass
    slow = Learner(Counter(words), readable, least, frozenset(special))
    while len(readable) < size and slow.step():
        pass
    return (fast.result(), compiled), (slow.merges, readable)


@QUICK
@given(
    st.lists(st.text("abc ", max_size=40), min_size=1, max_size=8), st.integers(260, 330), st.integers(0, 3),
    st.sets(st.text("abc", min_size=2, max_size=4), max_size=3),
)  # fmt: skip
@example(["aaaa aaaaa aaa aaaaaaaaa"], 300, 0, {"aa"})
@example(["ababab abcabc bcbc aabb"], 300, 0, set())
def test_the_compiled_learner_learns_what_the_readable_one_learns(texts, size, least, special):
    words = Counter(itertools.chain.from_iterable(map(WORDS, texts)))
    if words:
        fast, slow = both_ways(words, size, least, sorted(special))
        assert fast == slow


def test_the_learner_grows(monkeypatch, expected):
    monkeypatch.setattr(compiled_training, "PAIRS", 2**13)
    grown = []
    monkeypatch.setattr(CompiledLearner, "_grow", lambda self, grow=CompiledLearner._grow: grown.append(grow(self)))
    fast, slow = both_ways(dict(expected), 1200, 2, ["<s>", "\u017f no byte symbols 🙂", "self"])
    assert fast == slow
    assert grown
    assert "self" not in {left + right for left, right in fast[0]}


def library(texts, size, special, least):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, min_frequency=least, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.mark.row("TOK-09", reference="tokenizers")
@pytest.mark.parametrize("least", [0, 2])
def test_streamed_and_parallel_training_equals_the_library(documents, small_portions, monkeypatch, least):
    monkeypatch.setattr(bpe_trainer, "MANY_WORDS", 0)
    steps = []
    ours = train_byte_bpe(
        iter(documents), 6000, ["<|end|>"], min_frequency=least, progress=lambda *done: steps.append(done)
    )
    reference = library(documents, 6000, ["<|end|>"], least)
    assert ours.merges == [tuple(pair) for pair in json.loads(reference.to_str())["model"]["merges"]]
    assert ours.vocab == reference.get_vocab()
    assert steps[-1] == (6000, 6000)
    assert len(steps) > 3


@pytest.mark.row("TOK-09", reference="tokenizers")
@QUICK
@given(st.lists(st.text("ab c", max_size=60), min_size=1, max_size=6), st.integers(256, 320), st.integers(0, 3))
def test_compiled_training_breaks_ties_like_the_library(corpus, size, least):
    if not any(corpus):
        return
    vocab = {token: number for number, token in enumerate(ALPHABET)}
    counter = CompiledCounter(PATTERNS["gpt2"])
    counter.add(corpus)
    merges = learn_merges(counter.result(), vocab, size, least)
    reference = library(corpus, size, [], least)
    assert merges == [tuple(pair) for pair in json.loads(reference.to_str())["model"]["merges"]]
    assert vocab == reference.get_vocab()


def test_random_bytes_as_text(trained):
    rng = random.Random(1)
    for size in range(200):
        text = rng.randbytes(size).decode("utf-8", errors="replace")
        trained["llama3"].check(text)
