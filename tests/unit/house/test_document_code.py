"""The Python in the documents runs: all blocks of a page, in order, with the few names that the page takes as given."""

import re
import shutil
from pathlib import Path

import pytest
import torch

import groundup
from groundup.base.folders import find_folder

ROOT = Path(__file__).resolve().parents[3]
SLOW = {"evaluation.md", "stories.md"}


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(path)]
PARAMETERS = [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.name in SLOW)) for p in PAGES]


def given(page, folder):
    """What a page takes as given, in `folder`: a model, a tokenizer, texts, files by the names the page uses."""
    texts = ["One spring, in the village, the fox gave the red ball to Anna. " * 30] * 4
    (folder / "notes.txt").write_text("\n\n".join(texts), encoding="utf-8")
    (folder / "quiz.jsonl").write_text(
        '{"question": "2 + 2 =", "choices": ["4", "5"], "answer": 0}\n' * 4, encoding="utf-8"
    )
    for name in ("folder", "Llama-2-13b"):
        shutil.copytree(find_folder("tiny"), folder / name)
    names = {"model": groundup.load_model("tiny", dtype="float32"), "tokenizer": groundup.load_tokenizer("tiny")}
    names |= {"texts": texts, "weight": torch.zeros(4, 4), "data": None, "tools": None}
    names["messages"] = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A fox."}]
    if page == "training":
        names["data"] = notes(names["tokenizer"])
    return names | (optimizer_page(names["model"]) if page == "optimizers" else {})


def notes(tokenizer):
    from groundup.data.config import DataConfig
    from groundup.data.load import load_data

    return load_data(DataConfig(source=["notes.txt"], context_length=32), tokenizer)


def optimizer_page(model):
    from groundup.training.clipping import clip_gradients
    from groundup.training.precision import LossScaler

    ids = torch.randint(1, 500, (2, 2, 2, 8))
    batches = [[{"ids": ids[step, part]} for part in range(2)] for step in range(2)]
    return {
        "batches": batches,
        "total_steps": 2,
        "scaler": LossScaler(),
        "loss": lambda model, batch: model(batch["ids"]).logsumexp(-1).mean(),
        "clip_gradients": clip_gradients,
    }


@pytest.mark.parametrize("path", PARAMETERS)
def test_the_code_of_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page", **given(path.stem, tmp_path)}
    for number, block in enumerate(blocks(path), start=1):
        exec(compile(block, f"{path.name}, block {number}", "exec"), names)


def test_the_pages_with_code_are_found():
    assert {"README", "layers", "training", "tokenizers", "generation"} <= {path.stem for path in PAGES}
