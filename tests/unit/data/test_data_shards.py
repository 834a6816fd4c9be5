"""Shards are the same for any number of workers, complete or absent, and refused when they do not fit."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from byte_tokenizer import ByteTokenizer
from groundup.base.errors import DataError, GroundupError
from groundup.data.config import DataConfig
from groundup.data.document import Document
from groundup.data.load import load_data, prepare_source, tokens_by_part
from groundup.data.prepare import prepare
from groundup.data.shards import open_shards, read_manifest
from groundup.data.split import PARTS, Split

DOCUMENTS = [Document(f"d{i}.txt", f"Text number {i} of the corpus. " * (1 + i % 7)) for i in range(200)]
SPLIT = Split(validation=0.2, test=0.1)


@pytest.fixture
def folder(tmp_path):
    prepare(DOCUMENTS, ByteTokenizer(), tmp_path / "shards", split=SPLIT, shard_tokens=4000)
    return tmp_path / "shards"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_round_trip(folder):
    expected = tokens_by_part(iter(DOCUMENTS), SPLIT, ByteTokenizer())
    assert len(list(folder.glob("train-*.bin"))) > 2
    for part in PARTS:
        tokens = open_shards(folder, part, ByteTokenizer(), verify=True)
        assert len(tokens) == len(expected[part])
        assert (tokens.offsets == expected[part].offsets).all()
        assert list(tokens.names) == list(expected[part].names)
        assert tokens.num_bytes == expected[part].num_bytes
        starts = np.arange(0, len(tokens), 17)
        assert (tokens.gather(starts, 50) == expected[part].gather(starts, 50)).all()


def test_manifest(folder):
    manifest = read_manifest(folder)
    assert manifest["tokenizer"] == "bytes"
    assert manifest["vocab_size"] == 257
    assert sum(total["documents"] for total in manifest["totals"].values()) == 200
    size = sum(len(document.text.encode()) for document in DOCUMENTS)
    assert sum(total["bytes"] for total in manifest["totals"].values()) == size
    assert sum(total["tokens"] for total in manifest["totals"].values()) == size + 200  # an end-of-text token each
    assert {path.suffix for path in folder.iterdir()} == {".bin", ".idx", ".json"}


def test_workers_change_nothing(folder, tmp_path):
    prepare(DOCUMENTS, ByteTokenizer(), tmp_path / "two", split=SPLIT, shard_tokens=4000, workers=2)
    assert contents(folder) == contents(tmp_path / "two")


@pytest.mark.parametrize("stop", [1, 60, 130, 199])
def test_interrupted_and_continued(folder, tmp_path, stop, monkeypatch):
    monkeypatch.setattr("groundup.data.prepare.in_groups", lambda items: ([item] for item in items))
    encoded = []

    class Counting(ByteTokenizer):
        def encode_batch(self, texts):
            encoded.extend(texts)
            return super().encode_batch(texts)

    def broken():
        yield from DOCUMENTS[:stop]
        raise RuntimeError("power cut")

    out = tmp_path / "again"
    with pytest.raises(RuntimeError):
        prepare(broken(), Counting(), out, split=SPLIT, shard_tokens=4000)
    assert not (out / "manifest.json").exists()
    assert not list(out.glob(".*"))
    with pytest.raises(DataError, match="did not finish"):
        open_shards(out)
    encoded.clear()
    prepare(DOCUMENTS, Counting(), out, split=SPLIT, shard_tokens=4000)
    assert contents(out) == contents(folder)
    assert stop < 100 or len(encoded) < 200
    encoded.clear()
    prepare(DOCUMENTS, Counting(), out, split=SPLIT, shard_tokens=4000)
    assert not encoded


def test_other_settings_do_not_overwrite(folder):
    before = contents(folder)
    with pytest.raises(DataError, match="already holds shards made with another split"):
        prepare(DOCUMENTS, ByteTokenizer(), folder, split=Split(), shard_tokens=4000)
    assert contents(folder) == before


def test_other_tokenizer_is_refused(folder):
    with pytest.raises(DataError, match=r"made with tokenizer bytes \(vocabulary 257\), not with other"):
        open_shards(folder, "train", ByteTokenizer("other"))


def change(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_damage_is_named(folder, tmp_path):
    def damaged(action, message, verify=False):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        action(copy / "train-00000.bin", copy / "train-00000.idx", copy / "manifest.json")
        with pytest.raises(DataError, match=message):
            open_shards(copy, verify=verify)

    damaged(lambda b, i, m: os.truncate(b, 1000), r"train-00000\.bin is cut short")
    damaged(lambda b, i, m: os.truncate(b, 10), r"train-00000\.bin is cut short: it ends within its header")
    damaged(lambda b, i, m: os.truncate(i, 100), r"train-00000\.idx is cut short")
    damaged(lambda b, i, m: b.unlink(), r"cannot read the shard .*train-00000\.bin")
    damaged(lambda b, i, m: change(b, 0, b"NOTMAGIC"), "is not a shard")
    damaged(lambda b, i, m: change(b, 16, b"\xff" * 8), "is cut short or not the file")
    damaged(lambda b, i, m: shutil.copy(b.with_name("train-00001.bin"), b), "not the file that the manifest describes")
    damaged(lambda b, i, m: change(b, 500, b"\x00\x55"), r"train-00000\.bin is damaged: its sha256", verify=True)
    damaged(lambda b, i, m: change(i, 80, b"\x00\x55"), r"train-00000\.idx", verify=True)
    damaged(lambda b, i, m: m.write_text("{"), r"manifest\.json is damaged")
    damaged(lambda b, i, m: m.write_text('{"version": 9}'), "has version 9")
    damaged(lambda b, i, m: m.write_text('{"version": 1}'), "manifest.json lacks 'parts'")
    damaged(
        lambda b, i, m: m.write_text(m.read_text().replace('"train-00000"', '"../train-00000"')),
        "leads out of the folder",
    )


def test_ids_outside_the_vocabulary(folder):
    change(folder / "train-00000.bin", 64, b"\xff\xff")
    with pytest.raises(DataError, match=r"token id 65535 in document d0\.txt"):
        open_shards(folder).gather(np.array([0]), 4)


@pytest.mark.skipif(sys.platform != "linux", reason="a file size limit")
def test_disk_full(tmp_path):
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
from byte_tokenizer import ByteTokenizer
from groundup.base.errors import GroundupError
from groundup.data.document import Document
from groundup.data.prepare import prepare
try:
    prepare([Document("a", "x" * 20000)], ByteTokenizer(), {str(tmp_path)!r})
except GroundupError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"cannot write to {tmp_path}: File too large")
    assert not list(tmp_path.iterdir())


def test_killed_while_writing(tmp_path):
    """Whatever stands under a final name after kill -9 is complete."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from byte_tokenizer import ByteTokenizer
from groundup.data.document import Document
from groundup.data.prepare import prepare
documents = (Document(str(i), f"text {{i}} " * 20) for i in range(10**9))
prepare(documents, ByteTokenizer(), {str(tmp_path)!r}, shard_tokens=2000)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.bin"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    partial = json.loads((tmp_path / "partial.json").read_text())
    manifest = partial["head"] | {"parts": partial["records"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    tokens = open_shards(tmp_path, "train", verify=True)
    assert tokens.num_documents >= 5


def test_empty_source_and_unwritable_folder(tmp_path):
    with pytest.raises(DataError, match="no documents with text"):
        prepare([], ByteTokenizer(), tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(GroundupError, match="cannot write to"):
        prepare(DOCUMENTS, ByteTokenizer(), tmp_path / "file" / "below")


def test_memory_cache_and_shards_give_the_same_batches(tmp_path):
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": d.text}) + "\n" for d in DOCUMENTS))
    config = DataConfig(source=str(source), split=SPLIT, context_length=16, packing="documents")
    cached = config.model_copy(update={"cache": tmp_path / "cache"})
    prepare_source(str(source), config, ByteTokenizer(), tmp_path / "shards", split=SPLIT, shard_tokens=3000)
    prepared = config.model_copy(update={"source": [str(tmp_path / "shards")]})
    loaders = [load_data(c, ByteTokenizer()).loader(8) for c in (config, cached, cached, prepared)]
    for _ in range(60):
        first, *others = [next(loader) for loader in loaders]
        assert all((other["ids"] == first["ids"]).all() for other in others)
        assert all(other["sources"] == first["sources"] for other in others)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    source.write_text(source.read_text() + '{"text": "one more"}\n')
    load_data(cached, ByteTokenizer())
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_load_data_guards(tmp_path):
    source = tmp_path / "short.txt"
    source.write_text("x" * 500)
    data = load_data(DataConfig(source=str(source), context_length=40), ByteTokenizer())
    assert data.summary()["short.txt"]["train"] == {"documents": 1, "tokens": 450, "bytes": 450}
    with pytest.raises(DataError, match="validation part has 50 tokens, but one row of context length 60 needs 61"):
        load_data(DataConfig(source=str(source), context_length=60), ByteTokenizer())
    source.write_text("  ")
    with pytest.raises(DataError, match="holds no documents with text"):
        load_data(DataConfig(source=str(source)), ByteTokenizer())
