"""Blank infilling: rows as the authors' code makes them, the loss by hand, and a training that resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.data.packing import pack
from groundup.data.tokens import Tokens
from groundup.layers.blank_infilling import blank_infilling
from groundup.models.configs.chatglm_6b import ChatGLM6BConfig
from groundup.models.configs.glm_130b import GLM130BConfig
from groundup.models.configs.glm_2021 import GLM2021Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model
from groundup.training.distributed import Workers
from groundup.training.held_out import HeldOut
from groundup.training.objectives.blank_infilling import BlankInfilling, MarkIds
from groundup.training.objectives.config import BlankInfillingConfig
from groundup.training.optimizers.config import SGDConfig
from groundup.training.precision import PrecisionConfig
from groundup.training.step import Step

FOLDER = Path(__file__).parents[1] / "data" / "reference" / "glm_2021"
SENTENCE, START, END, MASK, DOCUMENT = 59, 60, 61, 62, 63
MARKS = MarkIds(MASK, SENTENCE, DOCUMENT, START, END)
SHAPE = dict(
    **dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40),
    **dict(bos_token_id=START, eop_token_id=END, mask_token_id=MASK, gmask_token_id=DOCUMENT, initializer_range=0.2),
)
PLAIN = dict(embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)
FAMILIES = {
    "glm_2021": lambda: GLM2021Config(**SHAPE, **PLAIN, smask_token_id=SENTENCE),
    "glm_130b": lambda: GLM130BConfig(**SHAPE, intermediate_size=48),
    "chatglm_6b": lambda: ChatGLM6BConfig(**SHAPE, intermediate_size=48),
}
SHORT, LONG = BlankInfillingConfig(), BlankInfillingConfig(short=0, document=1)
WHOLE = BlankInfillingConfig(short=0, sentence=1)
MIXED = BlankInfillingConfig(short=0.4, sentence=0.3, document=0.3, blanked=0.3)
ENDS = np.arange(64) % 5 == 0


def objective(config=MIXED, paired=True):
    return BlankInfilling(config, MARKS, paired=paired, ends=ENDS)


def texts(rows=6, length=20, packed=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = {"ids": torch.randint(1, 58, (rows, length), generator=generator)}
    batch["labels"] = batch["ids"].roll(-1, 1)
    if packed:
        batch["documents"] = (torch.arange(length) >= 8).long().repeat(rows, 1) + 1
        batch["documents"][1::2, 15:] = 0
    return batch | {"sources": [f"row {i}" for i in range(rows)]}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return build_model(FAMILIES[request.param]()).eval()


@pytest.mark.row("OBJ-13", reference="the authors' code")
@pytest.mark.row("LM-20", reference="the authors' code")
@pytest.mark.parametrize(
    ("task", "mask"), [("token", MASK), ("sentence", SENTENCE), ("document", DOCUMENT)], ids=lambda x: str(x)
)
def test_rows_are_those_of_the_authors(task, mask):
    values = load_file(FOLDER / "values.safetensors")
    theirs = {name: values[f"blanks.{task}.{name}"] for name in ("spans", "order", "ids", "targets", "positions")}
    text, spans = values["blanks.text"].tolist(), [tuple(span) for span in theirs["spans"].tolist()]
    made = blank_infilling(text, spans, mask=mask, start=START, end=END, order=theirs["order"].tolist())
    assert torch.equal(made.ids, theirs["ids"])
    assert torch.equal(made.targets, theirs["targets"])
    assert torch.equal(made.positions, theirs["positions"])
    assert made.part_a == values[f"blanks.{task}.part_a"]


@pytest.mark.row("OBJ-13", reference="the authors' code")
@pytest.mark.row("LM-20", reference="the authors' code")
def test_the_loss_of_a_row_is_that_of_the_authors():
    values, model = load_file(FOLDER / "values.safetensors"), load_model(FOLDER / "weights.safetensors")
    ids, labels, positions = (values[f"blanks.token.{name}"][None] for name in ("ids", "targets", "positions"))
    ours = objective()
    batch = {"ids": ids, "labels": labels}
    with torch.no_grad():
        assert_close(model(ids, positions=positions)[0], values["blanks.token.logits"])
        total, weight, _ = ours.loss(model(ids, positions=positions, head=ours.head(batch)), batch)
    assert weight == 11  # eight tokens of three spans, and three ends
    assert_close(total / weight, values["blanks.token.loss"])


@pytest.mark.row("OBJ-13", reference="hand calculation: each target from a pass of its own over what it may see")
@pytest.mark.row("LM-20", reference="hand calculation: each target from a pass of its own over what it may see")
@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_by_hand(model, packed):
    ours = objective(paired=model.paired)
    torch.manual_seed(3)
    batch = ours.corrupt(texts(packed=packed))
    with torch.no_grad():
        outputs = model(
            batch["ids"],
            positions=batch["positions"],
            documents=batch["documents"],
            segments=batch["segments"],
            head=ours.head(batch),
        )
        total, weight, _ = ours.loss(outputs, batch)
        by_hand, targets = 0.0, 0
        for row in range(len(batch["ids"])):
            for document in batch["documents"][row].unique().tolist():
                mine = batch["documents"][row] == document
                part = {name: batch[name][row][mine] for name in ("ids", "labels", "positions", "segments")}
                for t in (part["labels"] != -100).nonzero()[:, 0].tolist():
                    seen = {name: part[name][None, : t + 1] for name in ("positions", "segments")}
                    logits = model(part["ids"][None, : t + 1], **seen)[0, -1]
                    by_hand -= logits.log_softmax(-1)[part["labels"][t]].item()
                    targets += 1
    assert weight == targets > 30
    assert total.item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.row("OBJ-13", reference="property: the text comes back when the spans are put into their blanks")
@pytest.mark.parametrize("config", [SHORT, WHOLE, LONG, MIXED], ids=["short", "sentence", "document", "mixed"])
@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_lost_and_each_span_stands_where_its_blank_is(config, packed):
    batch = texts(rows=16, packed=packed)
    torch.manual_seed(1)
    rows = objective(config).corrupt(batch)
    assert rows["ids"].shape[1] % 8 == 0
    assert rows["sources"] == batch["sources"]
    owners = batch.get("documents", torch.ones_like(batch["ids"]))
    orders = set()
    for row in range(16):
        for number, document in enumerate([n for n in owners[row].unique().tolist() if n], start=1):
            text = batch["ids"][row][owners[row] == document].tolist()
            mine = rows["documents"][row] == number
            ids, labels, positions, segments = (
                rows[name][row][mine].tolist() for name in ("ids", "labels", "positions", "segments")
            )
            part_a = segments.index(1)
            assert segments == [0] * part_a + [1] * (len(ids) - part_a)
            assert labels[:part_a] == [-100] * part_a
            assert positions[:part_a] == [[place, 0] for place in range(part_a)]
            starts = [t for t in range(part_a, len(ids)) if ids[t] == START]
            spans = {}
            for first, last in zip(starts, [*starts[1:], len(ids)], strict=True):
                blank = positions[first][0]
                assert ids[blank] in (MASK, SENTENCE, DOCUMENT)
                assert positions[first:last] == [[blank, 1 + t] for t in range(last - first)]
                assert ids[first + 1 : last] == labels[first : last - 1]  # the next token, inside a span
                told = labels[first:last]
                assert (told[-1] == END) != (ids[blank] == DOCUMENT)
                spans[blank] = [token for token in told if token != END]
            orders.add(tuple(sorted(spans).index(blank) for blank in spans))
            filled = [token for place in range(part_a) for token in spans.get(place, [ids[place]])]
            assert filled == text
        padding = rows["documents"][row] == 0
        assert (rows["labels"][row][padding] == -100).all()
    if config is SHORT and not packed:
        assert len({order for order in orders if len(order) == 2} | {(0,)}) > 1
        assert any(list(order) != sorted(order) for order in orders)  # shuffled


def test_a_row_of_padding_alone_stays_one():
    batch = texts(rows=2, packed=True)
    batch["documents"][1] = 0
    rows = objective(SHORT).corrupt(batch)
    assert (rows["documents"][1] == 0).all()
    assert (rows["labels"][1] == -100).all()
    assert (rows["labels"][0] != -100).any()


def test_unshuffled_spans_are_told_from_left_to_right():
    config = BlankInfillingConfig(shuffle=False, blanked=0.4)
    batch = objective(config).corrupt(texts(rows=8, length=39))
    for row in range(8):
        starts = batch["positions"][row][batch["ids"][row] == START][:, 0].tolist()
        assert starts == sorted(starts)
        assert len(starts) > 1


@pytest.mark.row("OBJ-13", reference="published: Zeng et al. 2022, 30 % [MASK] and 70 % [gMASK]")
def test_single_positions_stay_at_a_mask_and_run_on_after_the_last(model):
    config = BlankInfillingConfig(short=0.3, document=0.7, document_least=0)
    torch.manual_seed(0)
    rows = objective(config, paired=False).corrupt(texts(rows=400))
    document = (rows["ids"] == DOCUMENT).any(1)
    assert document.float().mean() == pytest.approx(0.7, abs=0.05)
    places = torch.arange(rows["ids"].shape[1])
    real = rows["documents"] == 1
    assert torch.equal(rows["positions"][document][real[document]], places.expand_as(real)[document][real[document]])
    inside = (rows["segments"] == 1) & real & ~document[:, None]
    blanks = rows["ids"].gather(1, torch.where(inside, rows["positions"], 0))
    assert (blanks[inside] == MASK).all()
    if not model.paired:  # found by its marks, a row with one blank has the same positions
        one = (rows["ids"] == START).sum(1) == 1
        few = {name: value[one][:20] for name, value in rows.items() if name != "sources"}
        with torch.no_grad():
            given = model(few["ids"], positions=few["positions"], segments=few["segments"], documents=few["documents"])
            assert_close(model(few["ids"], documents=few["documents"]), given)


def test_what_is_taken_out_depends_on_the_generator_alone():
    ours, batch = objective(), texts()

    def made(seed):
        torch.manual_seed(seed)
        return ours.corrupt(batch)

    first, again, other = made(0), made(0), made(1)
    assert all(torch.equal(first[name], again[name]) for name in first if name != "sources")
    assert not torch.equal(first["ids"][:, :20], other["ids"][:, :20])


@pytest.mark.row("OBJ-13", reference="property: micro-batches of any size give the same gradient")
def test_a_step_is_the_same_however_it_is_split(model):
    found = []
    for size in (None, 1, 4):
        copy = type(model)(model.config)
        copy.load_state_dict(model.state_dict())
        optimizer = SGDConfig(lr=0.5, momentum=0.0, weight_decay=0.0).build(copy.named_parameters())
        workers, ours = Workers(torch.device("cpu")), objective(SHORT, paired=model.paired)
        step = Step(copy, copy, ours, optimizer, PrecisionConfig(), workers, micro_batch_size=size)
        torch.manual_seed(5)
        result = step(texts(packed=True))
        found.append((result, copy.state_dict()))
    assert 20 < found[0][0].trained == found[0][0].weight < found[0][0].tokens / 2
    for result, weights in found[1:]:
        assert result.loss == pytest.approx(found[0][0].loss, rel=1e-5)
        for name, tensor in weights.items():
            assert_close(tensor, found[0][1][name], rtol=1e-4, atol=1e-5)


def test_every_evaluation_takes_out_the_same_and_disturbs_nothing(model):
    tokens = Tokens(
        [(np.arange(200) % 50 + 1).astype(np.uint16)], np.array([0, 200]), ["a text"], vocab_size=64, num_bytes=200
    )
    measure = HeldOut({"text": pack(tokens, 20)}, objective(SHORT, paired=model.paired), batch_size=4)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = measure(model)
    assert first.keys() == {"loss"}  # bits per byte are of whole texts
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(10)
    assert measure(model) == first


@pytest.mark.row("OBJ-13", reference="property: what the rest of a text tells is learnt")
def test_a_model_learns_to_fill_blanks_of_a_text_that_repeats(model):
    """Nine letters in turn, from any of them on. To guess letters and ends by their shares alone costs 2.2 nats."""
    ours = objective(SHORT, paired=model.paired)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    torch.manual_seed(0)
    losses = []
    for _ in range(60):
        starts = torch.randint(9, (8, 1))
        rows = ours.corrupt({"ids": (starts + torch.arange(24)) % 9 + 10})
        inputs = {name: rows[name] for name in ("positions", "documents", "segments")}
        total, weight, _ = ours.loss(model(rows["ids"], head=ours.head(rows), **inputs), rows)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
        losses.append((total / weight).item())
    assert sum(losses[:5]) / 5 > 2
    assert sum(losses[-10:]) / 10 < 1.6, losses[-10:]


RECIPE = """
model: {model_type: FAMILY, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2 MORE}
tokenizer: {kind: characters, special_tokens: ["<|endoftext|>", "[MASK]", "[gMASK]", "<sop>", "<eop>"]}
data: {source: ["SOURCE"], context_length: 24, split: {method: tail, validation: 0.1}}
objective: {kind: blank_infilling, short: 0.5, document: 0.5}
training: {steps: 6, batch_size: 4, checkpoint_every: 3, evaluate_every: 3, compile: false, seed: 3}
prompts: ["abc"]
sample_tokens: 4
"""


@pytest.mark.row("OBJ-13", reference="property: bit for bit what an uninterrupted training gives")
@pytest.mark.parametrize(("family", "more"), [("glm_2021", ""), ("glm_130b", ", intermediate_size: 32")])
def test_a_training_resumes_exactly(family, more, tmp_path):
    (tmp_path / "text.txt").write_text("abcdefgh. " * 80, encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    source = str(tmp_path / "text.txt")
    recipe.write_text(
        RECIPE.replace("FAMILY", family).replace("MORE", more).replace("SOURCE", source), encoding="utf-8"
    )
    assert main(["train", str(recipe), "--out-dir", str(tmp_path / "whole")]) == 0
    middle = tmp_path / "whole" / "checkpoints" / "step-000003"
    assert main(["train", str(recipe), "--out-dir", str(tmp_path / "rest"), "--resume", str(middle)]) == 0
    whole, rest = (load_file(tmp_path / run / "final" / "model.safetensors") for run in ("whole", "rest"))
    assert whole
    for name, tensor in whole.items():
        assert torch.equal(tensor, rest[name]), name
    config = load_model(tmp_path / "whole" / "final").config
    assert (config.mask_token_id, config.gmask_token_id, config.bos_token_id, config.eop_token_id) == (1, 2, 3, 4)


def test_models_marks_and_shares_that_do_not_fit_are_refused(model):
    with pytest.raises(UsageError, match=r"needs a model that fills blanks .*, not llama"):
        SHORT.build_for(build_model(LlamaConfig(**{k: SHAPE[k] for k in list(SHAPE)[:5]}, intermediate_size=8)), None)
    with pytest.raises(UsageError, match=r"shares of short, sentence and document .* 1 . 0 . 0.5 = 1.5"):
        BlankInfillingConfig.parse({"document": 0.5}, where="here")
    with pytest.raises(UsageError, match="use build_for"):
        SHORT.build()
    with pytest.raises(UsageError, match=r"document_least 0.9 is above document_most 0.5"):
        BlankInfillingConfig.parse({"document_least": 0.9, "document_most": 0.5}, where="here")
    with pytest.raises(UsageError, match="need `ends`"):
        BlankInfilling(WHOLE, MARKS, paired=True)
    for changes in ({"eop_token_id": 64}, {"eop_token_id": START}):
        model.config = model.config.model_copy(update=changes)
        with pytest.raises(UsageError, match=r"marks of their own in a vocabulary of 64.*end 6"):
            SHORT.build_for(model, None)


def test_the_objective_has_the_models_marks(model):
    ours = SHORT.build_for(model, None)
    assert ours.paired == model.paired
    assert (ours.marks.short, ours.marks.document, ours.marks.start, ours.marks.end) == (MASK, DOCUMENT, START, END)
    assert ours.marks.sentence == (SENTENCE if model.config.family() == "glm_2021" else MASK)
