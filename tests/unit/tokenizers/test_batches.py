"""Large batches in processes: the ids of `encode` in the same order, faults, and what small batches pay."""

import copy
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading

import pytest

from groundup.base.errors import UsageError
from groundup.tokenizers import batches, kernels
from groundup.tokenizers import tokenizer as base
from groundup.tokenizers.byte_symbols import ALPHABET
from groundup.tokenizers.extension import add_tokens
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.registry import (
    BPEConfig,
    ByteBPEConfig,
    CharactersConfig,
    SentencePieceConfig,
    WordPieceConfig,
    WordsConfig,
)
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.trie import Trie
from groundup.tokenizers.words import SimpleTokenizerV2, Words

CORPUS = [
    "the cat sat on the mat. The car, the rat; été 中文 don't 12,345!",
    "a b c d e f g h i j k l m n o p q r s t u",
]
KINDS = {
    "words": lambda: WordsConfig().train(CORPUS),
    "bpe": lambda: BPEConfig(vocab_size=120).train(CORPUS),
    "wordpiece": lambda: WordPieceConfig(vocab_size=120).train(CORPUS),
    "unigram": lambda: SentencePieceConfig(vocab_size=70, normalization="identity", symbols=("12",)).train(CORPUS),
    "sentencepiece bpe": lambda: SentencePieceConfig(
        vocab_size=340, model="bpe", normalization="identity", byte_fallback=True
    ).train(CORPUS),
    "byte_bpe, any expression": lambda: ByteBPEConfig(vocab_size=300, pattern=r"\w+|\W").train(CORPUS),
    "simple": lambda: SimpleTokenizerV2({"the": 0, "cat": 1, ",": 2}),
    "trie": lambda: Trie({symbol: n for n, symbol in enumerate([*ALPHABET, "th", "the", "\u0120the"], 1)}),
    "extended": lambda: add_tokens(WordPieceConfig(vocab_size=120).train(CORPUS), ["<|tool|>"], special=True),
}


@pytest.fixture
def at_once(monkeypatch):
    """Every batch is a large one, of small portions, and there are two processors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(kernels, "available", lambda: False)
    monkeypatch.setattr(base, "LARGE_BATCH", 0)
    monkeypatch.setattr(batches, "WORTH", 0)
    monkeypatch.setattr(batches.portions, "__defaults__", (200,))
    monkeypatch.setattr(batches, "PORTION", 200)


def texts(count=60, seed=1):
    """Texts of many lengths, some of them empty."""
    generator = random.Random(seed)
    words = [*" ".join(CORPUS).split(" "), "\n", "<|endoftext|>", "<|tool|>", "zebra", "\ud800", "中🙂"]
    return [" ".join(generator.choices(words, k=generator.randint(0, 30))) for _ in range(count)]


def ends(process):
    process.wait(30)
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_processes_give_the_ids_of_encode(kind, at_once, started):
    ours, given = KINDS[kind](), texts()
    for allowed in (False, True):
        expected = [ours.encode(text, allowed_special=allowed) for text in given]
        assert ours.encode_batch(given, allowed_special=allowed) == expected
    assert ours.encode_batch([]) == []
    if ours.bos_id is not None and ours.eos_id is not None:
        expected = [ours.encode(text, bos=True, eos=True) for text in given[:20]]
        assert ours.encode_batch(given[:20], bos=True, eos=True) == expected
    assert len(started) == 2
    assert all(process.poll() is None for process in started), "they wait for the next batch"
    del ours
    gc.collect()
    assert all(map(ends, started))


def test_the_processes_do_the_work(at_once, started, monkeypatch):
    ours = KINDS["wordpiece"]()
    expected = [ours.encode(text) for text in texts()]
    monkeypatch.setattr(ours, "encode", lambda *_, **__: pytest.fail("encoded here"))
    assert ours.encode_batch(texts()) == expected


def test_small_batches_and_one_processor_start_nothing(at_once, started, monkeypatch):
    ours = KINDS["words"]()
    monkeypatch.setattr(base, "LARGE_BATCH", 10**6)
    ours.encode_batch(texts())
    monkeypatch.setattr(base, "LARGE_BATCH", 0)
    monkeypatch.setattr(batches, "WORTH", sum(map(len, texts())) + 1)
    ours.encode_batch(texts())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ours.encode_batch(texts())
    CharactersConfig(unk=True).train(CORPUS).encode_batch(texts())
    assert not started
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    ours.encode_batch(texts())  # what was met before counts
    assert len(started) == 2


def test_small_batches_load_nothing():
    code = (
        "import sys; from groundup.tokenizers.registry import WordsConfig;"
        "WordsConfig().train(['a b']).encode_batch(['a', 'b'] * 1000);"
        "assert 'groundup.tokenizers.batches' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_text_without_ids_is_named(at_once, started):
    ours = WordsConfig(unk=False).train(CORPUS)
    given = ["the cat"] * 300
    given[190], given[250], given[299] = "the second", "the third", "the fourth"
    with pytest.raises(UsageError, match="'second'"):
        ours.encode_batch(given)
    assert ours.encode_batch(given[:190]) == [ours.encode("the cat")] * 190
    with pytest.raises(UsageError, match="no BOS"):
        KINDS["trie"]().encode_batch(given, bos=True)
    assert all(process.poll() is None for process in started)


def test_of_two_errors_at_once_the_first_in_the_batch_is_raised(at_once):
    class Unable:
        def send(self, message):
            pass

        def receive(self):
            return b""

    class Two:
        helpers, dead, closed = (Unable(), Unable()), False, False

    both = threading.Barrier(2, timeout=20)

    def here(texts):
        both.wait()
        raise UsageError(texts[0][0])

    for _ in range(10):
        with pytest.raises(UsageError, match="1"):
            batches._Batch(Two(), ["1" * 200, "2" * 200], {}, here).run()


def test_a_process_that_dies_loses_nothing(at_once, started, capfd):
    ours, given = KINDS["wordpiece"](), texts()
    expected = [ours.encode(text) for text in given]
    assert ours.encode_batch(given) == expected
    os.kill(started[0].pid, signal.SIGKILL)
    started[0].wait()
    assert ours.encode_batch(given) == expected
    assert capfd.readouterr().err.count("encoding in this one") == 1
    assert ours.encode_batch(given) == expected
    assert len(started) == 2
    assert capfd.readouterr().err == ""


def test_an_interrupt_ends_the_processes_and_the_next_batch_starts_others(at_once, started, monkeypatch):
    ours, given = KINDS["wordpiece"](), texts()
    ours.encode_batch(given)
    with monkeypatch.context() as patch:
        patch.setattr(batches.ThreadPoolExecutor, "map", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            ours.encode_batch(given)
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2
    assert ours.encode_batch(given) == [ours.encode(text) for text in given]
    assert len(started) == 4


def _interrupt(*_):
    raise KeyboardInterrupt


def test_where_no_process_starts_this_one_encodes(at_once, monkeypatch, capfd):
    ours, given = KINDS["words"](), texts()
    expected = [ours.encode(text) for text in given]
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert ours.encode_batch(given) == expected
    assert capfd.readouterr().err.count("encoding in this one") == 1
    assert ours.encode_batch(given) == expected
    assert capfd.readouterr().err == "", "one line is enough"


def test_a_tokenizer_that_files_do_not_tell_is_encoded_here(at_once, started, capfd):
    """Of a class of the user's, or changed in a way that is not saved."""

    class Shouting(Words):
        def _encode_text(self, text):
            return super()._encode_text(text.upper())

    ours = Shouting({"THE": 0, "CAT": 1, "?": 2}, names=SpecialNames(unk="?"))
    assert ours.encode_batch(["the cat", "dog"] * 300) == [[0, 1], [2]] * 300
    assert "what was saved of a Shouting is not the same" in capfd.readouterr().err
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_copies_pickles_and_threads(at_once, started):
    ours, given = KINDS["wordpiece"](), texts()
    expected = ours.encode_batch(given)
    assert pickle.loads(pickle.dumps(ours)).encode(given[1]) == expected[1]
    assert copy.deepcopy(ours).encode(given[1]) == expected[1]
    found = []
    threads = [threading.Thread(target=lambda: found.append(ours.encode_batch(given))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
    assert len(started) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork_the_parent_s_processes_are_left_alone(at_once, started):
    ours, given = KINDS["words"](), texts()
    expected = ours.encode_batch(given)
    child = os.fork()
    if child == 0:
        right = ours.encode_batch(given) == expected and len(started) == 4
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ours.encode_batch(given) == expected
    assert len(started) == 2


def test_saved_and_loaded_kinds_are_known_again(tmp_path):
    """What the processes compare survives the files, for every kind, and differs between them."""
    seen = set()
    for kind, make in KINDS.items():
        ours = make()
        ours.save_pretrained(tmp_path / kind)
        assert batches.identity(load_tokenizer(tmp_path / kind)) == batches.identity(ours)
        seen.add(batches.identity(ours))
    assert len(seen) == len(KINDS)


def test_ids_survive_the_bytes():
    ids = [[1, 2, 3], [], [2**24], []]
    assert batches.ids_from(batches.ids_as_bytes(ids), 4) == ids
    assert batches.ids_from(batches.ids_as_bytes([[]]), 1) == [[]]
    assert batches.ids_from(b"", 4) is None
