"""Files, folders and records become documents; what cannot be read is named by file and line."""

import gzip
import json
import os
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from groundup.base.errors import DataError
from groundup.data import reading
from groundup.data.problems import Problems
from groundup.data.sources import open_source, source_files, source_hashes


def texts(spec, **options):
    return [document.text for document in open_source(spec, **options)]


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def skipped(path, **options):
    """(texts, messages) under the skipping policy."""
    problems = Problems("skip")
    return texts(path, problems=problems, **options), problems.messages


def test_text_file_is_one_document(tmp_path):
    file = write(tmp_path / "a.txt", "one\n\ntwo\n")
    (document,) = open_source(file)
    assert (document.id, document.text, document.meta) == ("a.txt", "one\n\ntwo\n", {"source": "a.txt", "line": 1})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_and_line_ends(tmp_path, encoding):
    file = write(tmp_path / "a.txt", "Grüße\r\naus Köln 👋\r\n".encode(encoding))
    assert texts(file) == ["Grüße\naus Köln 👋\n"]


def test_big_endian_utf16(tmp_path):
    assert texts(write(tmp_path / "a.txt", b"\xfe\xff" + "Grüße".encode("utf-16-be"))) == ["Grüße"]


def test_separators(tmp_path):
    text = "one\ntwo<|endoftext|>\nthree<|endoftext|><|endoftext|>four"
    documents = list(open_source(write(tmp_path / "a.txt", text), separator="<|endoftext|>"))
    assert [(d.id, d.text) for d in documents] == [("a.txt:1", "one\ntwo"), ("a.txt:3", "three"), ("a.txt:3", "four")]
    poem = write(tmp_path / "b.txt", "a\nb\n\n \nc\n\n")
    assert [(d.id, d.text) for d in open_source(poem, separator="paragraphs")] == [
        ("b.txt:1", "a\nb\n"),
        ("b.txt:5", "c\n"),
    ]


def test_separator_across_blocks(tmp_path):
    pieces = ["x\n" * 200_000, "y" * 300_000, "z\n" * 10]
    assert texts(write(tmp_path / "a.txt", "\n---\n".join(pieces)), separator="\n---\n") == pieces


RECORDS = [{"text": 'first, "quoted"\nline'}, {"text": "zweite Größe"}]


def _jsonl():
    return "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", _jsonl()),
        ("jsonl-named.json", _jsonl()),
        ("a.json", json.dumps(RECORDS, indent=2).encode()),
        ("a.csv", 'id,text\n1,"first, ""quoted""\nline"\n2,zweite Größe\n'.encode()),
        ("a.tsv", 'id\ttext\n1\t"first, ""quoted""\nline"\n2\tzweite Größe\n'.encode()),
        ("a.jsonl.gz", gzip.compress(_jsonl(), mtime=0)),
        ("two-members.jsonl.gz", b"".join(gzip.compress(line, mtime=0) for line in _jsonl().splitlines(True))),
        ("a.jsonl.zst", zstandard.compress(_jsonl())),
        ("two-frames.jsonl.zst", b"".join(zstandard.compress(line) for line in _jsonl().splitlines(True))),
    ],
)
def test_record_files(tmp_path, name, data):
    assert texts(write(tmp_path / name, data)) == [record["text"] for record in RECORDS]


def test_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"t{i}" for i in range(1000)]}), tmp_path / "a.parquet")
    documents = list(open_source(tmp_path / "a.parquet"))
    assert [d.text for d in documents] == [f"t{i}" for i in range(1000)]
    assert documents[-1].id == "a.parquet:1000"


def test_parquet_wrong_type_and_damage(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), path)
    with pytest.raises(DataError, match=r"a\.parquet:1: the column `text` holds int"):
        texts(path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * 1000, None]}), path)
    with pytest.raises(DataError, match=r"a\.parquet:2: the column `text` holds NoneType"):
        texts(path)
    write(path, path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet:1: damaged or cut short"):
        texts(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "no end}', "not valid JSON"),
        (b'{"text": NaN}', "NaN is not JSON"),
        (b'{"text": -Infinity}', "-Infinity is not JSON"),
        (b'{"text": "a", "text": "b"}', "the key 'text' stands twice"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'["text"]', "expected an object"),
        (b'{"text": 5}', "holds int, not text"),
        (b'{"text": null}', "holds NoneType"),
        (b'{"text": "\xff"}', "not valid UTF-8"),
        (b'{"text": "a\x00b"}', "NUL"),
        (b'{"text": "a\\u0000b"}', "NUL"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b'{"body": "x", "title": "y"}', "no column `text`; found: body, title. The nearest known format is"),
        (b'{"prompt": "x", "completion": "y"}', "prompt-completion format"),
        (b'{"messages": []}', "messages format"),
        (b'{"instruction": "x", "input": "", "output": "y"}', "Alpaca format"),
    ],
)
def test_bad_lines_are_named_or_skipped(tmp_path, line, message):
    file = write(tmp_path / "a.jsonl", b'{"text": "good"}\n' + line + b'\n\n{"text": "also good"}\n')
    with pytest.raises(DataError) as error:
        texts(file)
    assert str(error.value).startswith(f"{file}:2: ")
    assert message in str(error.value)
    assert skipped(file) == (["good", "also good"], [str(error.value)])


def test_json_list_names_the_line(tmp_path):
    file = write(tmp_path / "a.json", '[\n {"text": "a"},\n {"text": 1},\n {"text": "b"},\n oops\n]')
    found, messages = skipped(file)
    assert found == ["a", "b"]
    assert [message.split(": ")[0] for message in messages] == [f"{file}:3", f"{file}:5"]


@pytest.mark.parametrize("text", ['[{"text": "a"}', '[{"text": "a"},', '[{"text": "a"}, {"te', "["])
def test_json_cut_short(tmp_path, text):
    with pytest.raises(DataError, match=r"a\.json:1"):
        texts(write(tmp_path / "a.json", text))


def test_json_missing_comma(tmp_path):
    with pytest.raises(DataError, match=r"a\.json:2"):
        texts(write(tmp_path / "a.json", '[{"text": "a"}\n{"text": "b"}]'))


def test_json_trailing_garbage(tmp_path):
    with pytest.raises(DataError, match=r"a\.json"):
        texts(write(tmp_path / "a.json", '[{"text": "a"}] {"text": "b"}'))


def test_csv_problems(tmp_path):
    file = write(tmp_path / "a.csv", 'id,text\n1,a\n2,b,c\n3,"d"x\n4,e\n')
    found, messages = skipped(file)
    assert found == ["a", "e"]
    assert [message.split(": ")[0] for message in messages] == [f"{file}:3", f"{file}:4"]
    with pytest.raises(DataError, match="stands twice in the header"):
        texts(write(tmp_path / "b.csv", "text,text\na,b\n"))
    long = write(tmp_path / "c.csv", "text\n" + "word " * 100_000 + "\n")
    assert len(texts(long)[0]) == 500_000


def test_invalid_utf8_and_nul_in_text(tmp_path):
    file = write(tmp_path / "a.txt", b"fine\nab\xffc\n")
    with pytest.raises(DataError, match=r"a\.txt:2: not valid UTF-8 \(byte 3"):
        texts(file)
    with pytest.raises(DataError, match=r"b\.txt:1: holds a NUL"):
        texts(write(tmp_path / "b.txt", b"a\0b"))
    with pytest.raises(DataError, match=r"c\.txt:1: not valid UTF-16"):
        texts(write(tmp_path / "c.txt", "good".encode("utf-16") + b"\x00\xd8a"))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_truncated_and_damaged_compression(tmp_path, compress):
    ending = ".gz" if compress is gzip.compress else ".zst"
    whole = compress(os.urandom(50_000).hex().encode())
    for name, data in (("cut", whole[:-100]), ("damaged", whole[:2000] + b"\0" * 500 + whole[2500:]), ("no", b"text")):
        with pytest.raises(DataError, match=f"{name}.txt{ending}"):
            texts(write(tmp_path / f"{name}.txt{ending}", data))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compression_bomb(tmp_path, compress):
    ending = ".gz" if compress is gzip.compress else ".zst"
    bomb = write(tmp_path / f"bomb.txt{ending}", compress((b"0" * 4095 + b"\n") * 2**14))
    tracemalloc.start()
    with pytest.raises(DataError, match="grows more than 200 times"):
        texts(bomb)
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


def test_long_line_is_passed_over_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE", 2**20)
    file = write(tmp_path / "a.jsonl", b'{"text": "a"}\n' + b"x" * 2**25 + b'\n{"text": "b"}\n')
    tracemalloc.start()
    found, messages = skipped(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["a", "b"]
    assert messages == [f"{file}:2: the line is longer than 1 MB"]
    assert peak < 8 * 2**20


def test_streaming_memory(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1) as file:
        for i in range(20_000):
            file.write(json.dumps({"text": f"{i} " + os.urandom(500).hex()}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in open_source(tmp_path / "a.jsonl.gz")) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_folder(tmp_path):
    root = tmp_path / "texts"
    (root / "b" / "c").mkdir(parents=True)
    (root / ".git").mkdir()
    write(root / "b" / "c" / "z.md", "deep")
    write(root / "a.txt", "top")
    write(root / "b.jsonl", '{"text": "record"}\n')
    write(root / ".hidden", "no")
    write(root / ".git" / "config", "no")
    write(root / "image.png", b"\x89PNG\0\0\0")
    write(root / "latin.txt", "Grüße".encode("latin-1"))
    write(tmp_path / "outside.txt", "secret")
    (root / "out.txt").symlink_to(tmp_path / "outside.txt")
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "inside.txt").symlink_to(root / "a.txt")
    os.mkfifo(root / "pipe")
    problems = Problems()
    documents = list(open_source(root, problems=problems))
    ids = [(d.id, d.text) for d in documents]
    assert ids == [("a.txt", "top"), ("b/c/z.md", "deep"), ("b.jsonl:1", "record"), ("inside.txt", "top")]
    left_out = sorted(message.removeprefix(f"{root}/").split(":")[0] for message in problems.skipped_files)
    assert left_out == ["image.png", "latin.txt", "out.txt", "pipe", "self"]
    assert list(source_hashes(root)) == ["a.txt", "b/c/z.md", "b.jsonl", "inside.txt"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="holds no text files"):
        texts(tmp_path)
    with pytest.raises(DataError, match=r"no file or folder at .*Did you mean `stories`"):
        texts("storys")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        texts(tmp_path / "pipe")


def test_unreadable_extension_is_text(tmp_path):
    assert [f.name for f in source_files(write(tmp_path / "NOTES", "plain"))] == ["NOTES"]
    assert texts(tmp_path / "NOTES") == ["plain"]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
            "user: hi\n\nassistant: yo",
        ),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "human: hi"),
        ({"prompt": "a", "completion": "b"}, "a\n\nb"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "user: a\n\nb"),
        ({"instruction": "i", "input": "", "output": "o"}, "i\n\no"),
        ({"question": "q", "answer": "a"}, "q\n\na"),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, "p\n\nc"),
    ],
)
def test_render(tmp_path, record, text):
    file = write(tmp_path / "a.jsonl", json.dumps(record))
    assert texts(file, render=True) == [text]
    with pytest.raises(DataError, match="format"):
        texts(file)


def test_limit(tmp_path):
    assert texts(write(tmp_path / "a.jsonl", _jsonl()), limit=1) == [RECORDS[0]["text"]]
