"""Quantizing while reading."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from families.tiny import ids, make_ours
from groundup.base.errors import CheckpointError, UsageError
from groundup.models.hub import load_model
from groundup.quantization import GPTQConfig, Int8Config, quantize
from groundup.quantization.streaming import load_quantized, quantize_folder


@pytest.mark.row("QNT-12", reference="the model quantized after loading")
@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "qwen2-moe", "gemma2"])
def test_it_is_the_model_quantized_after_loading(name, tmp_path):
    model = make_ours(name, tmp_path)
    model.save_pretrained(tmp_path / "plain")
    read = load_quantized(tmp_path / "plain", Int8Config())
    quantize(model, Int8Config())
    with torch.no_grad():
        assert torch.equal(read(ids()), model(ids()))
    quantize_folder(tmp_path / "plain", tmp_path / "small", Int8Config())
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "small")(ids()), model(ids()))


@pytest.mark.row("QNT-12", reference="the model quantized after loading")
def test_what_cannot_be_read_so_is_refused(tmp_path):
    make_ours("llama", tmp_path).save_pretrained(tmp_path / "plain")
    with pytest.raises(UsageError, match="gptq"):
        load_quantized(tmp_path / "plain", GPTQConfig(group_size=8))
    with pytest.raises(UsageError, match="nothing to quantize"):
        load_quantized(tmp_path / "plain", Int8Config(targets=["nowhere"]))
    quantize_folder(tmp_path / "plain", tmp_path / "small", Int8Config())
    with pytest.raises(UsageError, match="not quantized yet"):
        load_quantized(tmp_path / "small", Int8Config())
    (tmp_path / "plain/config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        load_quantized(tmp_path / "plain", Int8Config())


PEAK = """
import os, re, sys, torch
from pathlib import Path
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model, save_model
from groundup.quantization import Int8Config, quantize
from groundup.quantization.streaming import load_quantized, quantize_folder

folder, mode = Path(sys.argv[1]), sys.argv[2]

def status(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024

def make(name, layers, dtype):
    sizes = {"vocab_size": 256, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    save_model(build_model(LlamaConfig(num_hidden_layers=layers, **sizes), dtype=dtype), folder / name, 20_000_000)

if mode == "make":
    make("large", 16, "float32")
    make("small", 1, "float32")
    sys.exit()
load_quantized(folder / "small", Int8Config())  # what imports and first calls take
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
if mode == "stream":
    model = load_quantized(folder / "large", Int8Config())
elif mode == "folder":
    quantize_folder(folder / "large", folder / "out", Int8Config())
else:
    model = load_model(folder / "large")
    quantize(model, Int8Config())
print(status("VmHWM") - before)
"""


def peak_bytes(folder, mode):
    command = [sys.executable, "-c", textwrap.dedent(PEAK), str(folder), mode]
    # large models' matrices lie above malloc's greatest threshold, and freed ones go back at once; these are small
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "clear_refs" in result.stderr:
        pytest.skip("this kernel does not reset the peak of resident memory")
    assert result.returncode == 0, result.stderr
    return int(result.stdout or 0)


@pytest.mark.slow
@pytest.mark.row("QNT-12", reference="measured peak RSS")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
def test_peak_memory_is_far_below_the_model(tmp_path):
    """What is in memory: the quantized model, a quarter, one shard of the mapped file, and a few matrices."""
    peak_bytes(tmp_path, "make")
    stored = sum(file.stat().st_size for file in (tmp_path / "large").glob("*.safetensors"))
    assert stored > 250e6
    assert peak_bytes(tmp_path, "whole") > stored  # the measurement sees a model that was read as it is
    assert peak_bytes(tmp_path, "stream") < 0.5 * stored
    assert peak_bytes(tmp_path, "folder") < 0.8 * stored  # what is written is held until a shard is full
