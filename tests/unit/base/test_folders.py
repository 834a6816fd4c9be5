"""Finding model folders, reading and writing their configs, and the hub's errors."""

import json
import sys

import pytest

from groundup.base import folders
from groundup.base.errors import CheckpointError
from groundup.base.folders import find_folder, read_config, write_model_folder
from groundup.base.hub import download, is_hub_name


@pytest.fixture
def hub(monkeypatch):
    """Calls of snapshot_download; set `hub.result` to a folder or an exception."""
    import huggingface_hub

    class Hub:
        def __init__(self):
            self.calls, self.result = [], CheckpointError("the hub was asked")

        def __call__(self, repository, **options):
            self.calls.append((repository, options))
            if isinstance(self.result, Exception):
                raise self.result
            return str(self.result)

    fake = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_local_paths_come_first(tmp_path, monkeypatch, hub):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_folder("org/name").is_dir()
    assert find_folder(tmp_path / "org") == tmp_path / "org"
    assert hub.calls == []


def test_hub_names_are_downloaded_with_safe_patterns(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    hub.result = tmp_path
    assert find_folder("org/name@v1.0", files=["*.safetensors"]) == tmp_path
    assert hub.calls == [("org/name", {"revision": "v1.0", "allow_patterns": ["*.safetensors"]})]
    find_folder("hf://org/name")
    assert hub.calls[1][0] == "org/name"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in hub.calls[1][1]["allow_patterns"])


@pytest.mark.parametrize(
    "name", ["./org/name", "/org/name", "~/org", "a/b/c", "runs/final", "name", "../x", "org/../x", ""]
)
def test_mistyped_paths_never_reach_the_hub(tmp_path, monkeypatch, hub, name):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    if name == "":
        assert find_folder("") == find_folder(".")
    else:
        with pytest.raises(CheckpointError, match="no model folder"):
            find_folder(name)
    assert hub.calls == []


def test_paths_and_files_are_told_apart(tmp_path, hub):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        find_folder(tmp_path / "file")
    with pytest.raises(CheckpointError, match="no model folder"):
        find_folder(tmp_path / "none")
    with pytest.raises(CheckpointError, match="not among the files"):
        download("org/name", ["*.py"])
    with pytest.raises(CheckpointError, match="not a hub name"):
        find_folder("hf://../x")


def test_builtin_names(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "builtin_folders", lambda: {"tiny": tmp_path})
    assert find_folder("tiny") == tmp_path
    with pytest.raises(CheckpointError, match="Did you mean `tiny`"):
        find_folder("tinny")


def test_offline_without_a_cache_says_what_to_do(tmp_path):
    """With the real huggingface_hub, in a process of its own because it reads the environment when imported."""
    import os
    import subprocess

    code = "from groundup.base.folders import find_folder\ntry: find_folder('org/name')\nexcept Exception as e: print(repr(e))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "CheckpointError" in result.stdout
    assert "HF_HUB_OFFLINE" in result.stdout


@pytest.mark.parametrize(
    ("error", "advice"), [("GatedRepoError", "agree to its terms"), ("RepositoryNotFoundError", "check the spelling")]
)
def test_hub_errors_say_what_to_do(hub, error, advice):
    import httpx
    from huggingface_hub import errors

    hub.result = getattr(errors, error)("no", response=httpx.Response(403, request=httpx.Request("GET", "http://hub")))
    with pytest.raises(CheckpointError, match=advice):
        download("org/name", ["*.json"])
    hub.result = ConnectionError("cable")
    with pytest.raises(CheckpointError, match="ConnectionError: cable"):
        download("org/name", ["*.json"])


def test_hub_names():
    assert all(map(is_hub_name, ["org/name", "a-b/c.d_e", "org/name@main", "0x/1"]))
    assert not any(map(is_hub_name, ["name", "/a/b", "a/b/c", "a/..", "-a/b", ".a/b", "a b/c", "a/b\n", "org/name@"]))


def test_config_round_trip(tmp_path):
    config = {"model_type": "llama", "hidden_size": 16, "dtype": "float32", "rope_parameters": {"rope_theta": 1e4}}
    write_model_folder(tmp_path, config, {"eos_token_id": 2})
    assert read_config(tmp_path) == {**config, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float32"
    assert read_config(tmp_path, "generation_config.json") == {"eos_token_id": 2}
    with pytest.raises(CheckpointError, match=r"config\.json"):
        write_model_folder(tmp_path, {"eps": float("nan")})
    assert read_config(tmp_path)["model_type"] == "llama"


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": NaN}', '{"hidden_size": 1099511627776}', '{"a": 1, "a": 2}'])
def test_bad_configs_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path)


def test_missing_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"lacks the file config\.json"):
        read_config(tmp_path)


def test_code_in_a_model_folder_is_never_imported(tmp_path, capsys, monkeypatch):
    canary = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}, "model_type": "x"}))
    monkeypatch.chdir(tmp_path)
    assert read_config(tmp_path) == {"model_type": "x"}
    assert "auto_map" in capsys.readouterr().err
    assert "evil" not in sys.modules
    assert not canary.exists()
