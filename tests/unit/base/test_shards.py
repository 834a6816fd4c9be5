"""Checkpoints that are incomplete, contradictory, hostile or interrupted."""

import contextlib
import json
import os
import pickle
import resource

import pytest
import torch

from groundup.base.errors import CheckpointError, GroundupError
from groundup.base.shards import ShardReader, ShardWriter


def write_checkpoint(folder, count=3, value=0.0, **options):
    with ShardWriter(folder, **{"max_shard_bytes": 64, **options}) as writer:
        for i in range(count):
            writer.add(f"t{i}", torch.full((4, 4), value + i))


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "model")
    return tmp_path / "model"


def edit_index(folder, **changes):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].update(changes)
    path.write_text(json.dumps({**index, "weight_map": {k: v for k, v in index["weight_map"].items() if v != "gone"}}))


def test_reads_what_it_wrote(folder):
    with ShardReader(folder) as reader:
        assert len(reader) == 3
        assert "t1" in reader
        assert reader.nbytes == 3 * 64
        for i in (2, 0, 1, 0):  # shards are mapped again as needed
            assert torch.equal(reader.get(f"t{i}"), torch.full((4, 4), float(i)))
        with pytest.raises(CheckpointError, match="'nope'"):
            reader.get("nope")


def test_views_outlive_the_reader_and_their_files(folder):
    with ShardReader(folder) as reader:
        view = reader.get("t1")
    write_checkpoint(folder, value=7.0)
    assert torch.equal(view, torch.full((4, 4), 1.0))


def test_one_explicit_file(folder):
    with ShardReader(folder / "model-00002-of-00003.safetensors") as reader:
        assert reader.names() == ["t1"]


def test_missing_shards_are_counted_and_named(folder):
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of the 3 shards .*model-00002-of-00003"):
        ShardReader(folder)


def test_truncated_shard_is_named(folder):
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003.*'t1' ends after the file does"):
        ShardReader(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"t9": "model-00001-of-00003.safetensors"}, "lacks tensor 't9'"),
        ({"t0": "model-00002-of-00003.safetensors", "t1": "model-00001-of-00003.safetensors"}, "lacks tensor 't1'"),
        ({"t0": "model-00002-of-00003.safetensors"}, "t0"),
        ({"t1": "../out.safetensors"}, "would leave the folder"),
        ({"t1": "/tmp/out.safetensors"}, "would leave the folder"),
        ({"t1": "link.safetensors"}, "outside the folder"),
        ({"t1": "weights.bin"}, "no .safetensors file"),
        ({"t1": 5}, "no .safetensors file"),
    ],
)
def test_index_that_lies_is_refused(folder, changes, fault):
    outside = folder.parent / "out.safetensors"
    outside.write_bytes((folder / "model-00002-of-00003.safetensors").read_bytes())
    (folder / "link.safetensors").symlink_to(outside)
    edit_index(folder, **changes)
    with pytest.raises(CheckpointError, match=fault):
        ShardReader(folder)


def test_tensor_that_the_index_does_not_list_is_refused(tmp_path):
    write_checkpoint(tmp_path, count=4, max_shard_bytes=128)
    edit_index(tmp_path, t1="gone")
    with pytest.raises(CheckpointError, match="holds tensor 't1', which .* does not place there"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "{"])
def test_broken_index_is_refused(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        ShardReader(folder)


def test_says_what_a_folder_without_weights_holds(tmp_path, folder):
    with pytest.raises(CheckpointError, match="no model folder or file"):
        ShardReader(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no weights"):
        ShardReader(tmp_path)
    with pytest.raises(CheckpointError, match="holds no adapter_model.safetensors"):
        ShardReader(folder, stem="adapter_model")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"3 shards but no .*index\.json"):
        ShardReader(folder)


class Canary:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch '{self.path}'",))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "consolidated.00.pth", "x.ckpt"]
)
def test_pickles_are_refused_and_never_run(tmp_path, name):
    canary = tmp_path / "canary"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    for path in (folder, folder / name):
        with pytest.raises(CheckpointError, match=r"(?s)pickle.*save_pretrained"):
            ShardReader(path)
    (folder / "model.safetensors").write_bytes((folder / name).read_bytes())
    with pytest.raises(CheckpointError, match="safetensors"):
        ShardReader(folder)
    assert not canary.exists()
    pickle.loads((folder / name).read_bytes())  # the trap itself works
    assert canary.exists()


def test_reads_the_links_of_the_hub_cache(tmp_path, folder):
    blobs, snapshot = (tmp_path / "models--org--name" / part for part in ("blobs", "snapshots/abc"))
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted(folder.iterdir())):
        (blobs / f"blob{i}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/blob{i}")
    with ShardReader(snapshot) as reader:
        assert torch.equal(reader.get("t2"), torch.full((4, 4), 2.0))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [1, 2, 3])
@pytest.mark.parametrize("new", [1, 2, 3])
def test_a_new_checkpoint_replaces_the_old_one(tmp_path, old, new):
    write_checkpoint(tmp_path, old)
    write_checkpoint(tmp_path, new, value=5.0)
    with ShardReader(tmp_path) as reader:
        assert [tensor[0, 0].item() for _, tensor in reader.tensors()] == [5.0 + i for i in range(new)]
    shards = [f"model-{i + 1:05}-of-{new:05}.safetensors" for i in range(new)]
    assert names(tmp_path) == (["model.safetensors"] if new == 1 else [*shards, "model.safetensors.index.json"])


@pytest.mark.parametrize("old", [1, 3])
@pytest.mark.parametrize("new", [1, 3])
def test_interrupted_renames_never_mix_two_checkpoints(tmp_path, monkeypatch, old, new):
    """Stop before each rename or removal in turn, as a kill would: the folder is refused, or wholly old, or wholly new."""
    from pathlib import Path

    for step in range(20):
        folder = tmp_path / str(step)
        write_checkpoint(folder, old)
        calls = iter(range(100))

        def stop(real, step=step, calls=calls):
            def wrapped(*args, **options):
                if not str(args[0]).endswith(".partial") or real is os.replace:
                    if next(calls) == step:
                        raise KeyboardInterrupt
                return real(*args, **options)

            return wrapped

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(os, "replace", stop(os.replace))
            patch.setattr(Path, "unlink", stop(Path.unlink))
            write_checkpoint(folder, new, value=5.0)
        with contextlib.suppress(CheckpointError), ShardReader(folder) as reader:
            values = [tensor[0, 0].item() for _, tensor in reader.tensors()]
            assert values in ([float(i) for i in range(old)], [5.0 + i for i in range(new)])
        assert not [name for name in names(folder) if name.endswith(".partial")]
    assert values == [5.0 + i for i in range(new)]  # the last round was not interrupted


def test_an_error_while_writing_leaves_the_old_checkpoint(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ZeroDivisionError), ShardWriter(folder, max_shard_bytes=64) as writer:
        for i in range(3):
            writer.add(f"t{i}", torch.zeros(4, 4))
        _ = 1 / 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_full_disk_leaves_the_old_checkpoint(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(GroundupError, match="cannot write"), ShardWriter(folder) as writer:
            writer.add("big", torch.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_writer_refuses_what_cannot_be_stored(tmp_path):
    tied = torch.ones(4, 4)
    with pytest.raises(CheckpointError, match="'head' is tied to 'embed'"), ShardWriter(tmp_path) as writer:
        writer.add("embed", tied)
        writer.add("head", tied)
    with pytest.raises(CheckpointError, match="tied"), ShardWriter(tmp_path, max_shard_bytes=64) as writer:
        for name, tensor in (("embed", tied), ("other", torch.zeros(4, 4)), ("head", tied.view(16))):
            writer.add(name, tensor)
    with pytest.raises(CheckpointError, match="twice"), ShardWriter(tmp_path) as writer:
        writer.add("a", torch.ones(1))
        writer.add("a", torch.zeros(1))
    for odd in (torch.ones(2, device="meta"), torch.ones(2, 2).to_sparse(), torch.ones(2, dtype=torch.complex128)):
        with pytest.raises(CheckpointError, match="cannot be stored"), ShardWriter(tmp_path) as writer:
            writer.add("odd", odd)
    assert names(tmp_path) == []


def test_writer_takes_views_and_reused_addresses(tmp_path):
    fused = torch.arange(24.0).reshape(4, 6)
    conjugate = torch.tensor([1 + 2j]).conj()
    with ShardWriter(tmp_path, max_shard_bytes=64) as writer:
        for i, part in enumerate(fused.chunk(3, dim=1)):
            writer.add(f"part{i}", part)
        writer.add("conjugate", conjugate)
        for i in range(20):  # each may get the address of one that is gone
            writer.add(f"t{i}", torch.full((4, 4), float(i)))
    with ShardReader(tmp_path) as reader:
        assert torch.equal(torch.cat([reader.get(f"part{i}") for i in range(3)], dim=1), fused)
        assert reader.get("conjugate").item() == 1 - 2j
        assert all(reader.get(f"t{i}")[0, 0] == i for i in range(20))


def test_no_tensors_at_all(tmp_path):
    with ShardWriter(tmp_path):
        pass
    assert ShardReader(tmp_path).names() == []
