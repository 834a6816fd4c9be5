"""WordPiece against `tokenizers` and `transformers`: encoding, training, files; likelihood gain by hand."""

import json
import math
import time
from collections import Counter

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from groundup.base.errors import CheckpointError, DataError, UsageError
from groundup.tokenizers import wordpiece
from groundup.tokenizers.bert import bert_tokenizer, count_words, train_wordpiece
from groundup.tokenizers.formats import bert_vocab
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.registry import WordPieceConfig
from groundup.tokenizers.training.wordpiece import gain, learn_pieces
from groundup.tokenizers.wordpiece import WordPieceModel
from nasty_corpus import nasty_lines

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lines(shared):
    return nasty_lines(shared)


def vocabularies():
    token = st.tuples(st.sampled_from(["", "##"]), st.text("ab#c", min_size=1, max_size=5)).map("".join)
    return st.sets(token, max_size=25).map(lambda tokens: {t: i for i, t in enumerate(["[UNK]", *sorted(tokens)])})


@pytest.mark.row("TOK-13", reference="tokenizers")
@pytest.mark.parametrize("short", [64, 0])
@QUICK
@given(vocab=vocabularies(), word=st.text("ab#c", min_size=1, max_size=32))
def test_greedy_longest_match(short, vocab, word):
    """Both ways: by slices, and by the trie with failure links."""
    theirs = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wordpiece, "SHORT", short)
        ours = WordPieceModel(vocab, max_word=30).cut(word)
    assert ours == [(token.id, token.offsets[1]) for token in theirs.tokenize(word)]


@pytest.mark.row("TOK-13", reference="hand calculation")
def test_longest_match_by_hand():
    vocab = {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "##a": 4, "una": 5, "##ff": 6}
    model = WordPieceModel(vocab)
    assert model.cut("unaffable") == [(5, 3), (6, 5), (3, 9)]  # una is longer than un
    assert model.cut("unq") == [(0, 3)]
    assert model.cut("a" * 101) == [(0, 101)]
    assert [WordPieceModel({"[UNK]": 0, "ab": 1}, max_word=size).cut("ab") for size in (1, 2)] == [[(0, 2)], [(1, 2)]]
    with pytest.raises(UsageError, match="unknown token"):
        WordPieceModel({"a": 0}).cut("b")
    with pytest.raises(CheckpointError, match="max_input_chars_per_word"):
        WordPieceModel({}, max_word=-1)


def test_long_words_take_linear_time():
    long = "##" + "a" * 50_000 + "b"
    model = WordPieceModel({"[UNK]": 0, "a": 1, "##a": 2, long: 3, "##" + "a" * 7: 4}, max_word=10**9)
    started = time.process_time()
    assert len(model.cut("a" * 300_000)) == 1 + 42_857
    assert model.cut("a" * 300_000 + "c") == [(0, 300_001)]
    assert time.process_time() - started < 20  # the plain way looks at 10^10 slices


# Training.


@pytest.mark.row("TOK-13", reference="hand calculation")
def test_likelihood_gain_by_hand():
    words = Counter({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5})
    order = ["h", "##u", "##g", "p", "##n", "b", "##s"]
    # Counts: h 15, ##u 36, ##g 20, p 17, ##n 16, b 4, ##s 5; pairs: ##u##g 20, ##g##s 5, p##u 17, ...
    # ##g##s: 5 / (20 x 5) = 1/20 is the most; ##u##g, the most frequent, has 20 / (36 x 20) = 1/36 only.
    # Then h##u, p##u, b##u (1/36 each), ##u##gs 5 / (36 x 5) = 1/36 tie: the oldest is h##u.
    # Then hu##gs: 5 / (15 x 5) = 1/15, before hu##g: 10 / (15 x 15) = 2/45.
    assert learn_pieces(words, 10, alphabet=order)[7:] == ["##gs", "hu", "hugs"]
    assert learn_pieces(words, 8, alphabet=order, score="frequency")[7:] == ["##ug"]
    total = sum(count * len(word) for word, count in words.items())
    assert gain(5, 20, 5, total) == pytest.approx(math.log((5 / total) / ((20 / total) * (5 / total))))
    assert gain(5, 20, 5, total) > gain(20, 36, 20, total)


@pytest.mark.row("TOK-13", reference="hand calculation")
def test_a_join_makes_the_rest_of_its_parts_gain_more():
    # a##b 1 / (4 x 1) = 1/4, d##e 5 / (5 x 5) = 1/5, a##c 3 / (4 x 4) = 3/16; without ab, a##c has 3 / (3 x 4) = 1/4.
    words = Counter({"ab": 1, "ac": 3, "xc": 1, "x": 9, "de": 5})
    assert learn_pieces(words, 99)[-4:] == ["ab", "ac", "de", "xc"]


@pytest.mark.row("TOK-13", reference="hand calculation")
def test_un_and_able_are_frequent_and_yet_not_joined():
    """`un` + `##able` stand together 20 times, but each occurs far more often elsewhere; q + ##z never do."""
    words = Counter({"unable": 20, "undo": 60, "unit": 60, "doable": 60, "readable": 60, "qz": 3})
    # As pieces: un 140 times, ##able 140 times, both together 20: 20 / (140 x 140) = 1/980.
    # q and ##z occur 3 times, always together: 3 / (3 x 3) = 1/3.
    total = sum(count * len(word) for word, count in words.items())
    assert gain(20, 140, 140, total) < gain(3, 3, 3, total)
    joined = learn_pieces(words, 200)
    assert joined.index("qz") < joined.index("unable")
    frequent = learn_pieces(words, 60, score="frequency")
    assert frequent.index("unable") < frequent.index("qz")


@pytest.mark.row("TOK-13", reference="own: all gains anew at each step")
@QUICK
@given(st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=8))
def test_each_join_gains_most(words):
    """Whatever the heap does: at each step no other pair would have gained more."""
    learnt = learn_pieces(Counter(words), 40)
    start = learn_pieces(Counter(words), len({c for w in words for c in w}) + len({c for w in words for c in w[1:]}))
    state = {word: [word[0], *("##" + c for c in word[1:])] for word in words}
    for piece in learnt[len(start) :]:
        pairs, symbols = Counter(), Counter()
        for word, count in words.items():
            for symbol in state[word]:
                symbols[symbol] += count
            for pair in zip(state[word], state[word][1:], strict=False):
                pairs[pair] += count
        scores = {pair: count / (symbols[pair[0]] * symbols[pair[1]]) for pair, count in pairs.items()}
        best = max(scores.values())
        made = {pair for pair in scores if pair[0] + pair[1].removeprefix("##") == piece and scores[pair] == best}
        if not made:  # a join made a piece that was there already, and another one came after it
            return
        chosen = min(made, key=lambda pair: [learnt.index(symbol) for symbol in pair])
        for word, pieces in state.items():
            state[word] = joined(pieces, chosen)


def joined(pieces, pair):
    out = []
    for piece in pieces:
        if out and (out[-1], piece) == pair and out[-1] is not None:
            out[-1:] = [pair[0] + pair[1].removeprefix("##"), None]
            continue
        out.append(piece)
    return [piece for piece in out if piece is not None]


def library_training(words, size, least=0):
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=["[UNK]"], min_frequency=least, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join([word] * count) for word, count in words.items()], trainer)
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=lambda token: vocab[token])


def characters(vocab):
    return [token for token in vocab if len(token.removeprefix("##")) == 1]


@pytest.mark.row("TOK-13", reference="tokenizers")
@QUICK
@given(
    st.dictionaries(st.text("abcd", min_size=1, max_size=8), st.integers(1, 6), min_size=1, max_size=12),
    st.integers(12, 60),
    st.integers(0, 3),
)
def test_frequency_variant_equals_the_library(words, size, least):
    """The library numbers characters inside words in random order; given that order all else is equal, ties too."""
    theirs = library_training(words, size, least)
    order = characters(theirs)
    ours = learn_pieces(
        Counter(words),
        max(size, len(order) + 1),
        score="frequency",
        min_frequency=least,
        first=["[UNK]"],
        alphabet=order,
    )
    assert ours[: len(theirs)] == theirs


@pytest.mark.row("TOK-13", reference="tokenizers")
def test_frequency_variant_on_real_text(shared):
    text = (shared / "data" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:400_000]
    words = count_words([text])
    theirs = library_training(words, 3000)
    ours = learn_pieces(words, 3000, score="frequency", first=["[UNK]"], alphabet=characters(theirs))
    assert ours == theirs


def test_training_faults():
    with pytest.raises(DataError, match="empty"):
        train_wordpiece([" "], 100)
    with pytest.raises(UsageError, match="characters and special tokens"):
        train_wordpiece(["abc def"], 7)
    with pytest.raises(UsageError, match="different"):
        train_wordpiece(["abc"], 100, ["[UNK]", "[UNK]"])
    assert "[unk]" not in train_wordpiece(["[UNK] [UNK] [UNK]"], 60, min_frequency=1).vocab


# Files.


@pytest.fixture(scope="module", params=["likelihood", "frequency"])
def trained(request, shared):
    texts = [(shared / "data" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:200_000], "naïve ÄÖÜ 中文 🙂"]
    return WordPieceConfig(vocab_size=1500, score=request.param).train(texts)


@pytest.mark.row("TOK-13", reference="tokenizers")
def test_saved_file_encodes_identically_in_the_library(trained, tmp_path, lines):
    trained.save_pretrained(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    back = load_tokenizer(tmp_path)
    assert back.fingerprint() == trained.fingerprint()
    reference = theirs.encode_batch(lines, add_special_tokens=False)
    for line, expected in zip(lines, reference, strict=True):
        ids = trained.encode(line, allowed_special=True)
        assert ids == expected.ids
        assert theirs.decode(ids, skip_special_tokens=False) == trained.decode(ids)
    for line in lines[::97]:
        assert theirs.encode(line).ids == trained.encode_with_special(line, allowed_special=True).ids


@pytest.mark.row("TOK-13", reference="transformers")
@pytest.mark.parametrize(
    ("lowercase", "accents", "chinese"), [(True, None, True), (False, None, True), (True, False, False)]
)
def test_vocab_txt_in_transformers_and_back(tmp_path, lines, lowercase, accents, chinese):
    from transformers import AutoTokenizer

    texts = ["The quick brown fox naïve", "中文 Ünïcode!", *lines[:200]]
    ours = train_wordpiece(
        texts, 2500, lowercase=lowercase, strip_accents=accents, chinese_apart=chinese, min_frequency=1
    )
    bert_vocab.write(ours, tmp_path / "vocab.txt")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    back = load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path / "vocab.txt").fingerprint() == back.fingerprint() == ours.fingerprint()
    for line in lines[::20]:
        assert theirs(line, add_special_tokens=False)["input_ids"] == ours.encode(line, allowed_special=True), line
        assert back.encode(line) == ours.encode(line)


@pytest.mark.row("TOK-13", reference="tokenizers")
@QUICK
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cn", "Co")), max_size=40))
def test_bert_parts_on_any_text(text):
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789äöéß中文字"
    vocab = {t: i for i, t in enumerate(["[PAD]", "[UNK]", *alphabet, *("##" + c for c in alphabet), "the", "##ing"])}
    ours = bert_tokenizer(vocab)
    theirs = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    theirs.normalizer = normalizers.BertNormalizer()
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.decoder = decoders.WordPiece()
    assert ours.encode(text) == theirs.encode(text).ids


def test_case_is_told_by_the_vocabulary(tmp_path):
    for word, cased in (("Hello", True), ("hello", False)):
        path = tmp_path / f"{word}-vocab.txt"
        path.write_text(f"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{word}\n")
        assert (load_tokenizer(path).encode("HELLO") == [1]) is cased
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load_tokenizer(tmp_path / "hello-vocab.txt").encode("HELLO") == [1]
