"""Files of torch.save from strangers: nothing in them is ever executed, and no size in them is believed."""

import io
import json
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch

from groundup.base.errors import CheckpointError
from groundup.models.formats.formats import open_weights
from groundup.models.formats.pickle_data import read_pickle
from groundup.models.formats.torch_file import LEGACY_MAGIC, TorchFile
from groundup.models.hub import load_model


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def zipped(path, raw, entries=(), root="archive", compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr(f"{root}/data.pkl", raw)
        archive.writestr(f"{root}/byteorder", "little")
        for name, content in entries:
            archive.writestr(f"{root}/{name}", content)


NO_KEYS = pickle.dumps([], 2)


def legacy(path, raw, keys=NO_KEYS):
    machine = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    path.write_bytes(pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(1001, 2) + machine + raw + keys)


def payloads(canary):
    """name -> bytes of a pickle that would run a program in Python's own unpickler, or reaches for one."""
    touch = f"touch {canary}"
    found = {}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found[f"os.system, protocol {protocol}"] = pickle.dumps({"w": Call(os.system, touch)}, protocol)
    code = f"__import__('os').system({touch!r})"
    values = {
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "import": Call(__import__, "os"),
        "nested getattr": Call(getattr, Call(__import__, "os"), "system"),
        "subprocess": Call(subprocess.check_call, ["touch", str(canary)]),
        "pickle in pickle": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "torch.load": Call(torch.load, str(canary)),
        "storage from bytes": Call(torch.storage._load_from_bytes, b"x"),
        "in a state dict": {"state_dict": {"w": Call(os.system, touch)}},
    }
    found |= {name: pickle.dumps(value, 2) for name, value in values.items()}
    system = b"cposix\nsystem\n" if os.name == "posix" else b"cnt\nsystem\n"
    command = touch.encode()
    found["INST"] = b"(S'" + command + b"'\niposix\nsystem\n."
    found["OBJ"] = b"(" + system + b"S'" + command + b"'\no."
    found["NEWOBJ"] = b"\x80\x02" + system + b"(X" + struct.pack("<I", len(command)) + command + b"t\x81."
    found["EXT1"] = b"\x80\x02\x82\x01."
    found["stacked names"] = (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R."
    )
    found["dotted name"] = b"\x80\x04\x8c\x05torch\x8c\x10_utils.os.system\x93\x8c\x01x\x85R."
    found["REDUCE of a dtype"] = b"\x80\x02ctorch\nfloat32\n)R."
    found["BUILD on a dtype"] = b"\x80\x02ctorch\nfloat32\n}b."
    found["REDUCE of a dict"] = b"\x80\x02})R."
    return found


NAMES = sorted(payloads("canary"))


@pytest.mark.row("LM-51", reference="property: a canary file stays absent")
@pytest.mark.parametrize("container", [zipped, legacy])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_executed(tmp_path, name, container):
    canary = tmp_path / "canary"
    path = tmp_path / "pytorch_model.bin"
    container(path, payloads(canary)[name])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    for read in (TorchFile, open_weights, load_model):
        with pytest.raises(CheckpointError):
            read(path)
    with pytest.raises(CheckpointError):
        load_model(tmp_path)
    assert not canary.exists()


@pytest.mark.row("LM-51", reference="pickle")
def test_the_canary_sings_in_pythons_own_unpickler(tmp_path):
    canary = tmp_path / "canary"
    raw = payloads(canary)["os.system, protocol 2"]
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({raw!r})"], check=True)
    assert canary.exists()


def test_the_message_names_what_was_asked_for(tmp_path):
    zipped(tmp_path / "x.pth", payloads(tmp_path / "canary")["os.system, protocol 4"])
    with pytest.raises(CheckpointError, match=r"x\.pth: it asks for `posix\.system`.*nothing was executed"):
        TorchFile(tmp_path / "x.pth")


@pytest.mark.row("LM-51", reference="property")
def test_reading_does_not_import_what_is_named(tmp_path):
    zipped(tmp_path / "x.pth", b"\x80\x02cantigravity\nfly\n)R.")
    with pytest.raises(CheckpointError):
        TorchFile(tmp_path / "x.pth")
    assert "antigravity" not in sys.modules


# -- sizes -------------------------------------------------------------------------------------------------------------


class Stored:
    def __init__(self, count, kind=torch.FloatStorage, key="0"):
        self.id = ("storage", kind, key, "cpu", count)


class View:
    """Pickles as a tensor over a storage, whatever its sizes."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Stored) else None


def write_view(path, offset, shape, strides, count=6, stored=24, **options):
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"w": View(Stored(count, **options), offset, shape, strides)})
    zipped(path, buffer.getvalue(), [("data/0", struct.pack("<6f", *range(6))[:stored])])


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "expected"),
    [
        (0, (6,), (1,), [0, 1, 2, 3, 4, 5]),
        (1, (2, 2), (1, 3), [[1, 4], [2, 5]]),
        (0, (2, 2), (0, 1), [[0, 1], [0, 1]]),
        (6, (0,), (1,), []),
        (5, (), (), 5),
    ],
)
def test_views_within_their_storage(tmp_path, offset, shape, strides, expected):
    write_view(tmp_path / "x.pth", offset, shape, strides)
    assert TorchFile(tmp_path / "x.pth").get("w").tolist() == expected


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2,), (6,)),
        (7, (0,), (1,)),
        (0, (2**40,), (0,)),  # a terabyte that repeats one number
        (0, (3, 3), (0, 1)),
        (2**62, (2,), (2**62,)),
        (-1, (2,), (1,)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2**64,), (1,)),
        (0, (2,), (1, 1)),
        (0, (1,) * 17, (1,) * 17),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0, [2], (1,)),
        ("0", (2,), (1,)),
    ],
)
def test_views_beyond_their_storage_are_refused(tmp_path, offset, shape, strides):
    write_view(tmp_path / "x.pth", offset, shape, strides)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        TorchFile(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 7}, "28 are expected"),
        ({"stored": 20}, "20 bytes, 24 are expected"),
        ({"count": 2**61}, "are expected"),
        ({"count": -6}, "not a size"),
        ({"kind": torch.DoubleStorage}, "48 are expected"),
        ({"key": "../0"}, "missing"),
        ({"kind": OrderedDict}, "no known type"),
    ],
)
def test_storages_that_do_not_fit_the_file_are_refused(tmp_path, options, message):
    write_view(tmp_path / "x.pth", 0, (2,), (1,), **options)
    with pytest.raises(CheckpointError, match=message):
        TorchFile(tmp_path / "x.pth")


def test_compressed_entries_are_refused(tmp_path):
    bomb = pickle.dumps({"w": "0" * 10_000_000}, 2)
    zipped(tmp_path / "x.pth", bomb, compress=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed"):
        TorchFile(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x02}q\x00.", "holds no state dict"),
        (b"\x80\x02]q\x00.", "holds no state dict"),
        (b"\x80\x02", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02}K\x01s.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\xff", "damaged"),
        (b"\x80\x02K\x01K\x02b.", "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02\x8a\xff" + b"\xff" * 254 + b"\x7f.", "damaged"),
    ],
)
def test_pickles_that_are_no_state_dicts(tmp_path, raw, message):
    zipped(tmp_path / "x.pth", raw)
    with pytest.raises(CheckpointError, match=message):
        TorchFile(tmp_path / "x.pth")


def test_a_dict_key_that_takes_for_ever_to_hash(tmp_path):
    zipped(tmp_path / "x.pth", b"\x80\x02}" + NESTED + b"K\x01s.")
    with pytest.raises(CheckpointError, match="key of type tuple"):
        TorchFile(tmp_path / "x.pth")


NESTED = b"K\x01" + b"q\x00h\x00\x86" * 60  # 2^60 numbers in 60 nested pairs: its text would never end


def test_a_size_that_takes_for_ever_to_print(tmp_path):
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + NESTED + b"tQ."
    zipped(tmp_path / "x.pth", b"\x80\x02" + storage)
    with pytest.raises(CheckpointError, match="a tuple stands for a size"):
        TorchFile(tmp_path / "x.pth")


def test_a_storage_key_that_takes_for_ever_to_print(tmp_path):
    legacy(tmp_path / "x.pth", b"\x80\x02}.", keys=b"\x80\x02]" + NESTED + b"a.")
    with pytest.raises(CheckpointError, match="no list of texts"):
        TorchFile(tmp_path / "x.pth")


def test_endless_pickles_are_cut_off(monkeypatch):
    monkeypatch.setattr("groundup.models.formats.pickle_data.MAX_INSTRUCTIONS", 1000)
    options = {"records": {}, "names": lambda name: False, "persistent": lambda key: None, "where": "x"}
    with pytest.raises(CheckpointError, match="more than 1,000 instructions"):
        read_pickle(io.BytesIO(b"\x80\x02" + b"N" * 2000 + b"."), **options)


@pytest.mark.row("LM-51", reference="pickle")
def test_plain_data_is_read_as_python_reads_it():
    value = {
        "list": [1, -2, 3.5, None, True, False, 2**40, -(2**70)],
        "nested": {"tuple": (1,), "pair": (1, "é"), "three": (1, 2, 3), "four": (1, 2, 3, 4), "empty": ()},
        "text": "x" * 300,
        7: [[], {}, [[1]]],
    }
    value["again"] = value["list"]
    options = {"records": {}, "names": lambda name: False, "persistent": lambda key: None, "where": "x"}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        raw = pickle.dumps(value, protocol)
        assert read_pickle(io.BytesIO(raw), **options) == value
        assert read_pickle(io.BytesIO(pickletools.optimize(raw)), **options) == value


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [True, False], ids=["zip", "legacy"])
def test_damaged_files_are_refused_or_read_within_bounds(tmp_path, form):
    """Random flips and cuts: an error of ours, or tensors that lie within the file; never another exception."""
    torch.manual_seed(0)
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(2).bfloat16()}
    torch.save(tensors, tmp_path / "whole.pth", _use_new_zipfile_serialization=form)
    whole, path = (tmp_path / "whole.pth").read_bytes(), tmp_path / "x.pth"
    generator, refused = random.Random(0), 0
    for _ in range(1000):
        raw = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2, 8))):
            raw[generator.randrange(len(raw))] = generator.randrange(256)
        if generator.random() < 0.2:
            del raw[generator.randrange(len(raw)) :]
        path.write_bytes(raw)
        try:
            with TorchFile(path) as weights:
                for name in weights.names():
                    assert weights.get(name).nbytes <= len(raw)
        except CheckpointError:
            refused += 1
    assert 0 < refused < 1000
