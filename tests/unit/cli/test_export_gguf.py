"""`groundup export gguf`: what it prints, and what it refuses."""

import pytest

from gguf_models import make
from groundup.base.errors import CheckpointError, UsageError
from groundup.commands import export_gguf
from groundup.commands.export_gguf import ExportGGUF
from groundup.commands.named_model import tokenizer_of
from groundup.models.configs.qwen2_moe import Qwen2MoeConfig
from groundup.quantization.gguf.architectures import architecture_of
from groundup.tokenizers.hub import load_tokenizer


def export(path, source="tiny", **options):
    return ExportGGUF(source=str(source), out_file=path, **options).run()


@pytest.mark.row("QNT-12", reference="source model")
def test_the_built_in_model(tmp_path, capsys):
    told = export(tmp_path / "m.gguf", type="q4_0")
    said = capsys.readouterr().out
    assert "bits a weight" in said
    assert "stored as f16" in said
    assert told["bytes"] == (tmp_path / "m.gguf").stat().st_size
    assert 0.9 < told["similarity"] < 1
    assert told["tokenizer"]
    assert set(told["larger"].values()) == {"f16"}
    assert tokenizer_of(str(tmp_path / "m.gguf"), 1024).fingerprint() == load_tokenizer("tiny").fingerprint()
    with pytest.raises(UsageError, match="exists"):
        export(tmp_path / "m.gguf")
    again = export(tmp_path / "f.gguf", tmp_path / "m.gguf", type="f32")
    assert again["similarity"] > 0.9999


def test_refusals(tmp_path):
    for path, message in ((tmp_path / "m.bin", "NAME.gguf"), (tmp_path / "d.gguf", "is a folder")):
        (tmp_path / "d.gguf").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=message):
            export(path)
    with pytest.raises(UsageError, match="qwen2_moe models cannot be written"):
        architecture_of(Qwen2MoeConfig())


def test_a_failed_self_test_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    make("llama").save_pretrained(tmp_path / "model")
    (tmp_path / "m.gguf").write_bytes(b"old")
    monkeypatch.setattr(export_gguf, "cosine", lambda one, other: 0.5)
    with pytest.raises(CheckpointError, match="self-test failed"):
        export(tmp_path / "m.gguf", tmp_path / "model", overwrite=True)
    assert (tmp_path / "m.gguf").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "model"]
