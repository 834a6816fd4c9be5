import json
import os
import random
import signal
import time

import pytest
import torch
from train_toy import save_forever, save_with_limit, start

from groundup.base.errors import CheckpointError, GroundupError
from groundup.training import checkpoint
from groundup.training.checkpoint import Checkpoints, load_model_tensors, model_tensors
from groundup.training.random_state import random_state, set_random_state


def tensors(step):
    return {
        "model": {"a": torch.full((1000,), float(step)), "b": torch.arange(10)},
        "optimizer": {"a.m": torch.ones(3)},
    }


def save(folder, *steps, keep=2, best=None):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(tensors(step), {"step": step, "note": [1, None, "x"]}, best)
    return checkpoints


def test_round_trip_and_which_are_kept(tmp_path):
    checkpoints = save(tmp_path, 10, 20, 30, 40, keep=2, best=10)
    assert [path.name for path in checkpoints.complete()] == ["step-000010", "step-000030", "step-000040"]
    saved = checkpoints.load()
    assert saved.state == {"step": 40, "note": [1, None, "x"]}
    assert all(torch.equal(saved.tensors[s][n], t) for s, named in tensors(40).items() for n, t in named.items())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_kill_at_20_random_moments_of_saving_leaves_a_complete_checkpoint(tmp_path):
    """A process saves without pause and notes what it finished: the newest complete one is never older than that."""
    chance = random.Random(0)
    done = tmp_path / "done"
    for _ in range(20):
        before = done.stat().st_mtime_ns if done.exists() else 0
        process = start(save_forever, folder=str(tmp_path / "checkpoints"), done=str(done))
        end = time.monotonic() + 60
        while not (done.exists() and done.stat().st_mtime_ns != before) and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.1)
        process.kill()
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
        saved = Checkpoints(tmp_path / "checkpoints").load()
        assert saved.step >= int(done.read_text())
        assert bool((saved.tensors["model"]["a"] == saved.step).all())


def damage_flip(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def damage_truncate(path):
    os.truncate(path / "optimizer.safetensors", 50)


def damage_remove(path):
    (path / "model.safetensors").unlink()


def damage_manifest(path):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"]["sha256"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))


def damage_state(path):
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace('"step": 20', '"step": 21'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_flip, r"model\.safetensors does not have the hash"),
        (damage_truncate, r"optimizer\.safetensors has 50 bytes"),
        (damage_remove, r"model\.safetensors is missing"),
        (damage_manifest, r"manifest\.json was altered"),
        (damage_state, r"state\.json does not have the hash"),
    ],
)
def test_damage_is_named_and_older_ones_are_used_only_when_asked(damage, message, tmp_path):
    checkpoints = save(tmp_path, 10, 20)
    damage(checkpoints.path(20))
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load()
    assert checkpoints.load(fall_back=True).step == 10


def test_a_folder_without_marker_does_not_count(tmp_path):
    checkpoints = save(tmp_path, 10, 20)
    (checkpoints.path(20) / checkpoint.MARKER).unlink()
    assert checkpoints.latest() == checkpoints.path(10)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.load(checkpoints.path(20))
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        Checkpoints(tmp_path / "empty").load()


def test_full_disk_is_an_error_and_nothing_half_written_stays(tmp_path):
    """The system's limit on file sizes: writes fail as they do on a full disk, in the tensors and in the JSON."""
    save(tmp_path / "checkpoints", 10)
    for limit in (100, 3000):
        result = tmp_path / f"result-{limit}"
        process = start(save_with_limit, folder=str(tmp_path / "checkpoints"), limit=limit, result=str(result))
        process.join(60)
        assert process.exitcode == 1
        assert "cannot write" in result.read_text()
        assert "step-000020" in result.read_text()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000010"]
    assert checkpoints.load().step == 10


def test_no_space_left_on_device(tmp_path, monkeypatch):
    checkpoints = save(tmp_path, 10)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("groundup.training.checkpoint._manifest", full)
    with pytest.raises(GroundupError, match="no space is left"):
        checkpoints.save(tensors(20), {"step": 20})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_tied_tensors_are_stored_once_and_misfits_are_named():
    from toy import ToyConfig, ToyModel

    model = ToyModel(ToyConfig(tie_word_embeddings=True))
    saved = {name: tensor.clone() for name, tensor in model_tensors(model).items()}
    assert "lm_head.weight" not in saved
    other = ToyModel(ToyConfig(tie_word_embeddings=True), seed=1)
    load_model_tensors(other, saved, "here")
    assert torch.equal(other.lm_head.weight, model.embed.weight)
    del saved["norm.bias"]
    saved["norm.weight"] = torch.ones(3)
    with pytest.raises(CheckpointError, match=r"norm\.bias is missing; norm\.weight is \(3,\), the model has \(16,\)"):
        load_model_tensors(other, saved, "here")


def test_random_state_goes_through_json():
    import numpy as np

    random.seed(1)
    np.random.seed(2)
    np.random.standard_normal()
    torch.manual_seed(3)
    state = json.loads(json.dumps(random_state()))
    first = random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()
    set_random_state(state)
    assert first == (random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist())
