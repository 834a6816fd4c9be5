"""Our safetensors header checks, reader and writer against the safetensors library and transformers."""

import json
import random
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file

from groundup.base.errors import CheckpointError
from groundup.base.safetensors_header import DTYPES, read_header
from groundup.base.shards import ShardReader, ShardWriter


def every_dtype() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = {}
    for name, (dtype, size) in DTYPES.items():
        raw = torch.randint(0, 2 if name == "BOOL" else 120, (6 * size,), dtype=torch.uint8)
        tensors[f"w.{name}"] = raw.view(getattr(torch, dtype)).reshape(2, 3)
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), 'é "quoted" \\ 名前': torch.ones(3)}
    return tensors


def refused_by_library(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (the handle is no dict)
                file.get_tensor(name)
    except (SafetensorError, RuntimeError, ValueError, TypeError):
        return True
    return False


def refused_by_us(path: Path) -> bool:
    try:
        read_header(path)
    except CheckpointError:
        return True
    return False


def write(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_written_bytes_equal_the_librarys(tmp_path):
    tensors = every_dtype()
    with ShardWriter(tmp_path) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
    assert (tmp_path / "model.safetensors").read_bytes() == save(tensors, {"format": "pt"})


def test_reads_what_the_library_writes(tmp_path):
    tensors = every_dtype()
    save_file(tensors, tmp_path / "model.safetensors")
    with ShardReader(tmp_path) as reader:
        assert set(reader.names()) == set(tensors)
        for name, tensor in tensors.items():
            found, meta = reader.get(name), reader.meta(name)
            assert torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
            assert found.dtype == tensor.dtype
            assert (f"torch.{meta.dtype}", meta.shape, meta.nbytes) == (str(found.dtype), found.shape, found.nbytes)


U8 = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
# name -> (header, data, does the library refuse it too?)
DAMAGED = {
    "dtype unknown": ({"a": {**U8, "dtype": "U7"}}, b"0", True),
    "dtype of half a byte": ({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"0", False),
    "shape and bytes differ": ({"a": {**U8, "shape": [2]}}, b"0", True),
    "shape negative": ({"a": {**U8, "shape": [-1, -1]}}, b"0", True),
    "shape fractional": ({"a": {**U8, "shape": [1.0]}}, b"0", True),
    "shape true": ({"a": {**U8, "shape": [True]}}, b"0", True),
    "shape minus zero": (b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', b"", True),
    "shape overflow": ({"a": {"dtype": "U8", "shape": [2**62, 4, 2], "data_offsets": [0, 0]}}, b"", True),
    "shape overflow to zero": ({"a": {"dtype": "U8", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}, b"", True),
    "size overflow": ({"a": {"dtype": "F64", "shape": [2**61], "data_offsets": [0, 0]}}, b"", True),
    "shape overflow hidden by zero": (
        {"a": {"dtype": "U8", "shape": [2**62, 4, 0], "data_offsets": [0, 0]}},
        b"",
        True,
    ),
    "17 dimensions": ({"a": {**U8, "shape": [1] * 17}}, b"0", False),
    "offsets reversed": ({"a": {**U8, "data_offsets": [1, 0]}}, b"0", True),
    "offsets negative": ({"a": {**U8, "data_offsets": [-1, 0]}}, b"0", True),
    "offsets overlap": ({"a": U8, "b": U8}, b"0", True),
    "offsets with a hole": ({"a": U8, "b": {**U8, "data_offsets": [2, 3]}}, b"000", True),
    "offsets past the end": ({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, b"0", True),
    "bytes after the last": ({"a": U8}, b"00", True),
    "bytes in no tensor": ({}, b"0", True),
    "name twice": (b'{"a":%s,"a":%s}' % ((json.dumps(U8).encode(),) * 2), b"0", False),
    "key twice": (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"0", True),
    "key unknown": ({"a": {**U8, "more": 1}}, b"0", False),
    "key missing": ({"a": {"dtype": "U8", "shape": [1]}}, b"0", True),
    "metadata no text": ({"__metadata__": {"a": 1}, "a": U8}, b"0", True),
    "lone surrogate": (b'{"\\ud800":%s}' % json.dumps(U8).encode(), b"0", True),
    "not UTF-8": (b'{"\xff":%s}' % json.dumps(U8).encode(), b"0", True),
    "not JSON": (b"{nonsense}", b"", True),
    "a list": (b"[]", b"", True),
    "NaN": (b'{"a":NaN}', b"", True),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", True),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_refuses_damaged_headers(tmp_path, case):
    header, data, library_refuses = DAMAGED[case]
    path = write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        ShardReader(tmp_path)
    assert refused_by_library(path) == library_refuses


@pytest.mark.parametrize("length", [3, 100_000_001, 2**63, 2**64 - 1])
def test_refuses_lengths_that_lie_without_allocating(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    assert refused_by_us(path)
    assert refused_by_library(path)


def test_refuses_short_files_and_too_many_tensors(tmp_path):
    for size in (0, 7):
        (tmp_path / "model.safetensors").write_bytes(b"\0" * size)
        assert refused_by_us(tmp_path / "model.safetensors")
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    at_limit = write(tmp_path / "most.safetensors", {str(i): empty for i in range(100_000)})
    assert not refused_by_us(at_limit)
    over = write(tmp_path / "over.safetensors", {str(i): empty for i in range(100_001)})
    assert refused_by_us(over)
    assert refused_by_us(write(tmp_path / "bloat.safetensors", b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"))


def test_what_the_library_refuses_we_refuse(tmp_path):
    """4,000 damaged copies of sound files: what we accept the library accepts, and sound files pass."""
    choose = random.Random(1)
    sound = [save(every_dtype(), {"format": "pt"}), save({"a": torch.ones(2, 2), "b": torch.zeros(3)})]
    path, accepted = tmp_path / "model.safetensors", 0
    for _ in range(4000):
        path.write_bytes(mutate(choose, choose.choice(sound)))
        if not refused_by_us(path):
            accepted += 1
            assert not refused_by_library(path), path.read_bytes()
    for content in sound:
        path.write_bytes(content)
        assert not refused_by_us(path)
    assert 40 < accepted < 3600  # the damage is neither always harmless nor always fatal


def mutate(choose: random.Random, content: bytes) -> bytes:
    """One to three changes: a byte, a number, a word, a cut; the header's length is mended half of the time."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length], content[8 + length :]
    for _ in range(choose.randint(1, 3)):
        at = choose.randrange(len(header))
        kind = choose.randrange(6)
        if kind == 0:
            header = header[:at] + bytes([choose.randrange(256)]) + header[at + 1 :]
        elif kind == 1:
            digit = bytes(choose.choice(b'0123456789-.eE,[]{}"\\ \t\n') for _ in range(choose.randint(0, 3)))
            header = header[:at] + digit + header[at + choose.randint(0, 2) :]
        elif kind == 2:
            old, new = choose.sample([b"F32", b"F64", b"U8", b"I8", b"F4", b"BF16", b"BOOL", b"null", b"true"], 2)
            header = header.replace(old, new, 1)
        elif kind == 3:
            end = min(len(header), at + choose.randint(1, 30))
            header = header[:at] + header[at:end] * 2 + header[end:]
        elif kind == 4:
            data = data[: choose.randrange(len(data) + 1)] if choose.random() < 0.5 else data + b"\0"
        else:
            header += choose.choice([b" ", b"\0", b"\n", b"}", b"{}"])
    length = len(header) if choose.random() < 0.9 else choose.randrange(2 * len(header))
    return struct.pack("<Q", length) + header + data


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))


@pytest.mark.parametrize("max_shard_size", ["8KB", "10GB"])
def test_reads_the_shards_of_transformers(tmp_path, llama, max_shard_size):
    llama.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    with ShardReader(tmp_path) as reader:
        assert (len(reader.files) > 2) == (max_shard_size == "8KB")
        tensors = {name: tensor.clone() for name, tensor in reader.tensors()}
    theirs = llama.state_dict()
    assert tensors.keys() == theirs.keys()
    assert all(torch.equal(tensors[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("max_shard_bytes", [8_000, 10**9])
def test_transformers_reads_our_shards(tmp_path, llama, max_shard_bytes):
    from transformers import LlamaForCausalLM

    llama.save_pretrained(tmp_path / "theirs", max_shard_size="8KB")
    llama.config.save_pretrained(tmp_path / "ours")
    with ShardWriter(tmp_path / "ours", max_shard_bytes=max_shard_bytes) as writer:
        for name, tensor in llama.state_dict().items():
            writer.add(name, tensor)
    loaded, report = LlamaForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.arange(12).reshape(2, 6)
    torch.testing.assert_close(loaded(ids).logits, llama(ids).logits)
    theirs = llama.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.state_dict().items())
    if max_shard_bytes == 8_000:
        index, other = (
            json.loads((tmp_path / who / "model.safetensors.index.json").read_text()) for who in ("ours", "theirs")
        )
        assert index["metadata"] == other["metadata"]
        assert index["weight_map"].keys() == other["weight_map"].keys()
        big = {name for name, tensor in theirs.items() if tensor.nbytes > 8_000}
        for shard in sorted(set(index["weight_map"].values())):
            held = load_file(tmp_path / "ours" / shard)
            assert sum(tensor.nbytes for tensor in held.values()) <= 8_000 or len(held.keys() - big) == 0


PEAK = """
import sys
import torch
torch.set_num_threads(1)
import safetensors.torch
from groundup.base.shards import ShardReader, ShardWriter

def status(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024

def reset():
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM starts again from the present size

folder, mode = sys.argv[1:]
import torch.multiprocessing.reductions  # what is imported later would count
if mode == "read":
    model = {}
    with ShardReader(folder) as reader:
        names, total = reader.names(), reader.nbytes
        reset(); before = status("VmRSS")
        for name, tensor in reader.tensors():
            model[name] = tensor.clone()
    del tensor
elif mode == "hoard":  # every shard kept mapped: what the reader must not do
    reader = ShardReader(folder)
    reset(); before = status("VmRSS")
    model, views = {}, []
    for name, tensor in reader.tensors():
        views.append(tensor)
        model[name] = tensor.clone()
else:
    reset(); before = status("VmRSS")
    with ShardWriter(folder, max_shard_bytes=50 * 2**20) as writer:
        for i in range(40):
            writer.add(f"t{i:02}", torch.full((5 * 2**18,), float(i)))
print(status("VmHWM") - before)
"""


def peak_bytes(folder: Path, mode: str) -> int:
    command = [sys.executable, "-c", textwrap.dedent(PEAK), str(folder), mode]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "clear_refs" in result.stderr:
        pytest.skip("this kernel does not reset the peak of resident memory")
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.row("LM-52", reference="measured peak RSS")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.slow
def test_peak_memory_is_the_model_and_one_shard(tmp_path):
    """200 MiB in 4 shards of 50 MiB: writing needs about one shard, reading the model and one shard."""
    mib = 2**20
    written = peak_bytes(tmp_path, "write")
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    # One shard, the tensor at hand, and freed blocks that malloc has not given back.
    assert 50 * mib <= written < (50 + 5 + 60) * mib
    read = peak_bytes(tmp_path, "read")
    assert 200 * mib <= read < (200 + 50 + 15) * mib
    hoarded = peak_bytes(tmp_path, "hoard")
    assert hoarded > 350 * mib  # the measurement sees mapped shards
