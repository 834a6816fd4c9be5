"""GGUF files: what the `gguf` package writes and reads, and files that lie about themselves."""

import struct

import gguf
import numpy as np
import pytest

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.gguf_container import TENSOR_TYPES, GGUFFile, NewTensor, write_gguf

VALUES = {
    "general.architecture": "llama",
    "a.whole": 7,
    "a.negative": -7,
    "a.long": 2**40,
    "a.half": 0.5,
    "a.yes": True,
    "a.text": "zwölf \U0001f642",
    "a.texts": ["one", "", "zwölf"],
    "a.numbers": [1, -2, 3],
    "a.scores": [0.5, -1.25],
    "a.bytes": np.arange(5, dtype="|u1"),
}


def new(array, kind="f32"):
    return NewTensor(TENSOR_TYPES[kind], array.shape, lambda: array)


def written(path, values=VALUES, **tensors):
    write_gguf(
        path, values, tensors or {"x": new(np.arange(6, dtype="<f4").reshape(2, 3)), "y": new(np.ones(5, "<f4"))}
    )
    return path


@pytest.mark.row("QNT-12", reference="gguf")
def test_the_gguf_package_reads_what_is_written(tmp_path):
    reader = gguf.GGUFReader(written(tmp_path / "m.gguf"))
    for key, value in VALUES.items():
        found = reader.fields[key].contents()
        assert found == (value.tolist() if isinstance(value, np.ndarray) else value)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    np.testing.assert_array_equal(tensors["x"].data, np.arange(6, dtype="<f4").reshape(2, 3))
    np.testing.assert_array_equal(tensors["y"].data, np.ones(5))


@pytest.mark.row("QNT-12", reference="gguf")
def test_what_the_gguf_package_writes_is_read(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.u32", 2**32 - 1)
    writer.add_int8("a.i8", -3)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.no", False)
    writer.add_array("a.texts", ["x", "yy"])
    writer.add_array("a.flags", [True, False])
    writer.add_custom_alignment(64)
    x, q = np.arange(64, dtype=np.float32).reshape(2, 32), np.arange(68, dtype=np.uint8).reshape(2, 34)
    writer.add_tensor("x", x)
    writer.add_tensor("q", q, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(path) as file:
        got = file.metadata
        assert (got["a.u32"], got["a.i8"], got["a.f64"], got["a.no"]) == (2**32 - 1, -3, 0.1, False)
        assert got["a.texts"] == ["x", "yy"]
        assert got["a.flags"].tolist() == [True, False]
        assert got["general.alignment"] == 64
        assert file.tensors["q"].shape == (2, 32)
        np.testing.assert_array_equal(file.raw("x").view("<f4"), x)
        np.testing.assert_array_equal(file.raw("q"), q)


# -- files that lie ---------------------------------------------------------------------------------------------------


def text(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name="x", shape=(4,), kind=0, offset=0, dimensions=None):
    head = text(name) + struct.pack("<I", len(shape) if dimensions is None else dimensions)
    return head + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)


def file_of(entries=(), tensors=(), data=b"", *, version=3, counts=None, magic=b"GGUF"):
    num_tensors, num_entries = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, num_tensors, num_entries) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


HUGE = 2**60
LIES = {
    "empty": (b"", "too short"),
    "another file": (file_of(magic=b"GGML"), "does not begin with GGUF"),
    "version 1": (file_of(version=1), "version 1"),
    "big-endian": (file_of(version=3 << 24), "big-endian"),
    "2^60 tensors": (file_of(counts=(HUGE, 0)), "claims .* tensors"),
    "2^60 entries": (file_of(counts=(0, HUGE)), "claims .* metadata entries"),
    "more entries than bytes": (file_of(counts=(0, 3)), "claims 3 metadata entries"),
    "key beyond the end": (file_of(counts=(0, 1), entries=[struct.pack("<Q", 60_000), bytes(20)]), "was cut short"),
    "2^60 key": (file_of(counts=(0, 1), entries=[struct.pack("<Q", HUGE), bytes(20)]), "a metadata key claims"),
    "2^60 text": (file_of([entry("k", 8, struct.pack("<Q", HUGE))]), "was cut short"),
    "text beyond the end": (file_of([entry("k", 8, struct.pack("<Q", 100) + b"ab")]), "was cut short"),
    "2^60 numbers": (file_of([entry("k", 9, struct.pack("<IQ", 4, HUGE))]), "claims .* numbers in 'k'"),
    "2^62 x 4 wraps to 0": (file_of([entry("k", 9, struct.pack("<IQ", 4, 2**62))]), "claims .* numbers in 'k'"),
    "2^60 texts": (file_of([entry("k", 9, struct.pack("<IQ", 8, HUGE))]), "claims .* items in 'k'"),
    "arrays in arrays": (
        file_of([entry("k", 9, struct.pack("<IQ", 9, 1) * 9 + struct.pack("<IQ", 0, 0))]), "nested too deeply",
    ),
    "unknown kind": (file_of([entry("k", 13, bytes(8))]), "unknown type 13"),
    "unknown kind of items": (file_of([entry("k", 9, struct.pack("<IQ", 77, 1) + bytes(8))]), "unknown type 77"),
    "neither true nor false": (file_of([entry("k", 7, b"\x02")]), "neither true nor false"),
    "no UTF-8": (file_of([entry("k", 8, text(b"\xff\xfe"))]), "not UTF-8"),
    "key twice": (file_of([entry("k", 0, b"\x01")] * 2), "'k' appears twice"),
    "alignment 0": (file_of([entry("general.alignment", 4, struct.pack("<I", 0))]), "power of two"),
    "alignment 3": (file_of([entry("general.alignment", 4, struct.pack("<I", 3))]), "power of two"),
    "alignment as text": (file_of([entry("general.alignment", 8, text("32"))]), "power of two"),
    "no dimensions": (file_of(tensors=[tensor(shape=())]), "0 dimensions"),
    "2^32 - 1 dimensions": (file_of(tensors=[tensor(dimensions=2**32 - 1)]), "4294967295 dimensions"),
    "size 0": (file_of(tensors=[tensor(shape=(4, 0))]), "impossible shape"),
    "sizes that wrap to 0": (file_of(tensors=[tensor(shape=(2**32, 2**32))], data=bytes(64)), "impossible shape"),
    "larger than the file": (file_of(tensors=[tensor(shape=(2**40,))], data=bytes(64)), "ends at"),
    "offset beyond the end": (file_of(tensors=[tensor(offset=HUGE)], data=bytes(64)), "ends at"),
    "offset that wraps": (file_of(tensors=[tensor(offset=2**64 - 32)], data=bytes(64)), "ends at"),
    "offset between": (file_of(tensors=[tensor(offset=8)], data=bytes(64)), "no multiple of the alignment"),
    "cut short": (file_of(tensors=[tensor()], data=bytes(15)), "was cut short"),
    "one over another": (
        file_of(tensors=[tensor(shape=(16,)), tensor("y", offset=32)], data=bytes(64)), "lies over 'x'",
    ),
    "name twice": (file_of(tensors=[tensor(), tensor(offset=32)], data=bytes(64)), "'x' appears twice"),
    "name too long": (file_of(tensors=[tensor("x" * 64)], data=bytes(64)), "claims 64 bytes"),
    "unknown type": (file_of(tensors=[tensor(kind=99)], data=bytes(64)), "type 99"),
    "a type that is not read": (file_of(tensors=[tensor(kind=13)], data=bytes(64)), r"13 \(q5_k\)"),
    "half a block": (file_of(tensors=[tensor(shape=(33,), kind=8)], data=bytes(64)), "32 a block"),
}  # fmt: skip


@pytest.mark.row("QNT-12", reference="malformed files")
@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused(name, tmp_path):
    data, message = LIES[name]
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        GGUFFile(tmp_path / "bad.gguf")
    assert "bad.gguf" in str(caught.value)


def test_a_sound_file_made_by_the_same_hands_is_read(tmp_path):
    (tmp_path / "good.gguf").write_bytes(file_of([entry("k", 0, b"\x01")], [tensor()], bytes(16)))
    with GGUFFile(tmp_path / "good.gguf") as file:
        assert file.metadata == {"k": 1}
        assert file.tensors["x"].shape == (4,)


def test_every_cut_and_every_changed_byte_is_read_or_refused(tmp_path):
    """No other exception, whatever one byte says."""
    whole, path = written(tmp_path / "m.gguf").read_bytes(), tmp_path / "bad.gguf"
    generator = np.random.default_rng(0)
    changed = [whole[:end] for end in range(0, len(whole) - 32, 3)]
    for place in range(len(whole)):
        changed.append(whole[:place] + bytes([generator.integers(256)]) + whole[place + 1 :])
    refused = 0
    for data in changed:
        path.write_bytes(data)
        try:
            GGUFFile(path).close()
        except CheckpointError:
            refused += 1
    assert refused > len(changed) / 3


def test_what_has_no_place_is_not_written(tmp_path):
    path = tmp_path / "m.gguf"
    for values in ({"k": 2**70}, {"k": object()}, {"k": np.zeros((2, 2), "<f4")}):
        with pytest.raises(UsageError, match="'k'"):
            written(path, values)
    with pytest.raises(UsageError, match="longer than 63"):
        written(path, **{"x" * 64: new(np.ones(4, "<f4"))})
    with pytest.raises(UsageError, match="cannot be stored as q8_0"):
        written(path, x=NewTensor(TENSOR_TYPES["q8_0"], (33,), lambda: np.zeros(33, "|u1")))
