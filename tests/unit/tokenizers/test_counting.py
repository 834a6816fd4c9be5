"""Counting words for training: every kind in processes as in one, faults, and memory."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from groundup.base.errors import GroundupError
from groundup.tokenizers import kernels, processes
from groundup.tokenizers.formats.sentencepiece_proto import NormalizerSpec
from groundup.tokenizers.pipeline.normalizers import BertNormalizer
from groundup.tokenizers.pipeline.pre_tokenizers import BertPreTokenizer, WhitespaceSplit, split
from groundup.tokenizers.processes import Helper
from groundup.tokenizers.registry import (
    BPEConfig,
    ByteBPEConfig,
    SentencePieceConfig,
    TokenizerConfig,
    WordPieceConfig,
    WordsConfig,
)
from groundup.tokenizers.sentencepiece.pieces import LONGEST_WORD, PieceRules
from groundup.tokenizers.training import counting
from groundup.tokenizers.training.splitting import (
    ByParts,
    ByPattern,
    BySentence,
    BySigns,
    Splitter,
    read_splitter,
)
from groundup.tokenizers.words import cut_words

SPLITTERS = {
    "gpt2": ByPattern("gpt2"),
    "gpt2, NFKC": ByPattern("gpt2", "NFKC"),
    "any expression": ByPattern(r"\w+\s?|\W"),
    "uncased BERT": ByParts(BertPreTokenizer(), BertNormalizer()),
    "cased BERT": ByParts(BertPreTokenizer(), BertNormalizer(lowercase=False, handle_chinese_chars=False)),
    "white space": ByParts(WhitespaceSplit()),
    "signs": BySigns(),
    "sentences": BySentence(NormalizerSpec("identity"), PieceRules(), ("[x]",), ("[x]", "<s>")),
    "whole sentences": BySentence(
        NormalizerSpec("identity", remove_extra_whitespaces=False, add_dummy_prefix=False),
        PieceRules(by_whitespace=False, suffix=True),
    ),
}
WORDS = (
    "the a Of and, street. STRAẞE Σ ΟΔΟΣ été e\u0301te\u0301 don't 12,345 "
    "中文字 カタカナ 🙂 [x] <s> x<s>y \ufb01ne \u00a8 "
    "a\u00a0b \x0b\x0c tab\x00null \x85 q\u0307\u0323 \ud800 \u2581 \u0627\u0644 end\n\n next\tcell \r\n"
).split(" ")
TEXTS = st.lists(st.sampled_from([*WORDS, " ", "  ", "\n", ""]) | st.text(max_size=6), max_size=30).map(" ".join)


def stream(texts=60, words=300, seed=1):
    """Texts over the same words, however many."""
    generator = random.Random(seed)
    for _ in range(texts):
        yield " ".join(generator.choices(WORDS, k=words))


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(counting, "WORTH_A_PROCESS", 1000)
    monkeypatch.setattr(counting, "MUCH", 1000)
    monkeypatch.setattr(counting, "PORTION", 3000)


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_description_cuts_as_the_splitter_does(name):
    splitter = SPLITTERS[name]
    again = read_splitter(json.loads(json.dumps(splitter.to_json())))
    assert again == splitter
    texts = list(map(counting.without_surrogates, stream(5)))
    assert [list(again(text)) for text in texts] == [list(splitter(text)) for text in texts]


@pytest.mark.parametrize("name", SPLITTERS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS, size=st.integers(1, 40))
@example("\u0391\u03a3 \u0391\u03a3\n\u03a3 \u0301x", 1)
def test_the_words_of_a_text_are_those_of_its_parts(name, text, size):
    splitter, text = SPLITTERS[name], counting.without_surrogates(text)
    parts = list(splitter.parts(text, size))
    assert "".join(parts) == text
    assert list(itertools.chain.from_iterable(map(splitter, parts))) == list(splitter(text))


@pytest.mark.parametrize("name", ["uncased BERT", "cased BERT", "white space", "signs"])
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
@example("\u0391\u03a3\t\u03a3 \u0301x\r\n\x1c\u00a0\u2028 ")
def test_what_is_cut_stretch_by_stretch_is_what_is_cut_whole(name, text):
    splitter, text = SPLITTERS[name], counting.without_surrogates(text)
    if name == "signs":
        assert list(splitter(text)) == cut_words(text)
        return
    shown = splitter.normalizer.apply(text) if splitter.normalizer else text
    assert list(splitter(text)) == split(list(splitter.pre_tokenizer.steps()), shown, first=True)


def test_long_words_of_sentences_are_cut():
    size = LONGEST_WORD
    assert list(map(len, SPLITTERS["sentences"]("a" * (2 * size + 5) + " b"))) == [size, size, 6, 2]


def test_no_way_to_cut_is_left_out_here():
    assert {type(splitter) for splitter in SPLITTERS.values()} == {ByPattern, ByParts, BySigns, BySentence}


@pytest.mark.parametrize("name", SPLITTERS)
def test_processes_count_what_one_counts(name, small_portions, started):
    splitter = SPLITTERS[name]
    expected = Counter(word for text in map(counting.without_surrogates, stream()) for word in splitter(text))
    alone = counting.count_words(stream(), splitter, workers=1)
    assert not started
    together = counting.count_words(stream(), splitter, workers=3)
    assert len(started) == 3
    assert expected == alone == together
    assert list(alone) == list(together) == sorted(expected)
    assert all(process.poll() is not None for process in started)


def test_a_short_stream_starts_no_process(started):
    assert counting.count_words(iter(["a b a"]), SPLITTERS["white space"], workers=3) == {"a": 2, "b": 1}
    assert not started


KINDS: dict[str, TokenizerConfig] = {
    "byte_bpe": ByteBPEConfig(vocab_size=330),
    "byte_bpe, any expression": ByteBPEConfig(vocab_size=330, pattern=r"\w+|\W"),
    "bpe": BPEConfig(vocab_size=150),
    "wordpiece": WordPieceConfig(vocab_size=200),
    "wordpiece, frequency": WordPieceConfig(vocab_size=200, score="frequency"),
    "unigram": SentencePieceConfig(vocab_size=120, normalization="identity", symbols=("[x]",)),
    "sentencepiece bpe": SentencePieceConfig(vocab_size=120, model="bpe", normalization="identity"),
    "words": WordsConfig(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_the_same_from_processes(kind, small_portions, started, monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    trained = {}
    for workers in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", workers)
        trained[workers] = KINDS[kind].train(stream())
    assert len(started) == 3
    assert trained["3"].to_json() == trained["1"].to_json()
    assert trained["3"].fingerprint() == trained["1"].fingerprint()


def test_a_worker_that_dies_is_an_error(small_portions, started):
    def deadly():
        for number, text in enumerate(stream(500)):
            if number == 50:
                os.kill(started[0].pid, signal.SIGKILL)
                started[0].wait()
            yield text
        pytest.fail("the stream should not have been read to its end")

    with pytest.raises(GroundupError, match=r"signal 9 \(SIGKILL\).*OMP_NUM_THREADS=1"):
        counting.count_words(itertools.chain(deadly(), itertools.cycle(["a b c " * 100])), BySigns(), workers=2)
    assert all(process.poll() is not None for process in started)


def test_a_worker_that_dies_at_the_end_is_an_error(small_portions, monkeypatch):
    class Dying(Helper):
        def finish(self):
            os.kill(self._process.pid, signal.SIGKILL)
            super().finish()

    monkeypatch.setattr(processes, "Helper", Dying)
    with pytest.raises(GroundupError, match="SIGKILL"):
        counting.count_words(stream(), BySigns(), workers=2)


def test_where_no_process_starts_this_one_counts(small_portions, monkeypatch, capfd):
    expected = counting.count_words(stream(), BySigns(), workers=1)
    monkeypatch.setattr(counting, "WORKER", "groundup.no_such_module")
    assert counting.count_words(stream(), BySigns(), workers=2) == expected
    assert "counting in this one" in capfd.readouterr().err
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert counting.count_words(stream(), BySigns(), workers=2) == expected
    assert "counting in this one" in capfd.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_stream_ends_the_processes_at_once(error, small_portions, started, monkeypatch):
    waited = []
    monkeypatch.setattr(counting.ProcessCounter, "result", lambda worker: waited.append(worker))

    def broken():
        yield from stream()
        raise error("enough")

    with pytest.raises(error, match="enough"):
        counting.count_words(broken(), BySigns(), workers=2)
    assert len(started) == 2
    assert {process.poll() for process in started} == {-signal.SIGKILL}
    assert not waited, "nobody wants the counts"


INTERRUPTED = """
import itertools, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell begin with it ignored
from groundup.tokenizers import processes
from groundup.tokenizers.training import counting
from groundup.tokenizers.training.splitting import BySigns

popen = subprocess.Popen
def start(*args, **options):
    made = popen(*args, **options)
    print(made.pid, flush=True)
    return made
processes.subprocess.Popen = start
counting.WORTH_A_PROCESS = counting.PORTION = 1000

def stream():
    for number in itertools.count():
        yield "some words of a text that never ends"
        if number == 3000:
            print("counting", flush=True)

counting.count_words(stream(), BySigns(), workers=2)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_no_process(number):
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    try:
        children = [int(program.stdout.readline()) for _ in range(2)]
        assert program.stdout.readline() == "counting\n"
        program.send_signal(number)
        program.communicate(timeout=30)
    finally:
        program.kill()
    assert program.returncode in (-number, 130)
    while any(map(alive, children)):
        time.sleep(0.02)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def long_words(texts):
    """Texts over the same forty words of 20 letters: few words in much text, which is quick to count."""
    generator = random.Random(2)
    words = ["".join(generator.choices("abcdefghij", k=20)) for _ in range(40)]
    for _ in range(texts):
        yield " ".join(generator.choices(words, k=200))


def grows_less_than_the_text(peak):
    """Eight times as much text with the same words: the peak grows by less than a fifth of what is added."""
    peak(20)  # what is loaded and remembered once
    few, many = peak(20), peak(160)
    added = sum(map(len, long_words(160))) - sum(map(len, long_words(20)))
    assert many - few < 0.2 * added, (few, many, added)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("byte_bpe", 1), ("bpe", 1), ("wordpiece", 1), ("wordpiece", 2), ("unigram", 1), ("unigram", 2), ("words", 1)],
)
def test_memory_is_that_of_the_different_words(kind, workers, small_portions, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(workers))
    monkeypatch.setattr(kernels, "available", lambda: False)

    def peak(texts):
        tracemalloc.start()
        try:
            KINDS[kind].train(long_words(texts))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    grows_less_than_the_text(peak)


@pytest.mark.slow  # tracemalloc beside compiled loops
def test_memory_of_compiled_counting_is_that_of_the_different_words(small_portions):
    pytest.importorskip("numba")
    counting.count_pieces(long_words(20), ByPattern("gpt2"), workers=2)  # loads the loops

    def peak(texts):
        tracemalloc.start()
        try:
            counting.count_pieces(long_words(texts), ByPattern("gpt2"), workers=2)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    grows_less_than_the_text(peak)


def test_memory_of_a_process_that_counts_is_that_of_the_different_words(tmp_path):
    """What it runs, over files in place of pipes."""
    from groundup.tokenizers.training.counting_worker import count

    def peak(texts):
        path = tmp_path / str(texts)
        with path.open("wb") as file:
            processes.write_message(file, json.dumps(BySigns().to_json()).encode())
            for text in long_words(texts):
                processes.write_message(file, json.dumps([text]).encode())
        with path.open("rb") as read, (tmp_path / "answer").open("wb") as write:
            tracemalloc.start()
            count(read, write)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return peak

    grows_less_than_the_text(peak)


class Unknown(Splitter):
    type = "unknown"


def test_an_unknown_description_is_refused():
    with pytest.raises(GroundupError, match="unknown"):
        read_splitter({"type": Unknown.type})
