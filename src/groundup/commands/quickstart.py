"""`groundup quickstart`: the whole way once, in minutes: text, tokenizer, training, measures, a folder others load."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from groundup.base.console import say, table
from groundup.base.errors import UsageError
from groundup.commands.command import Command
from groundup.commands.train import Train
from groundup.data.config import DataConfig
from groundup.data.split import Split
from groundup.models.configs.llama import LlamaConfig
from groundup.tokenizers.registry import ByteBPEConfig
from groundup.training.config import TrainingConfig
from groundup.training.optimizers.config import AdamWConfig
from groundup.training.precision import PrecisionConfig
from groundup.training.schedules import Cosine

if TYPE_CHECKING:
    from collections.abc import Callable

    from groundup.evaluation.baselines.baseline import Baseline
    from groundup.evaluation.baselines.kneser_ney import KneserNey
    from groundup.tokenizers.tokenizer import Tokenizer
    from groundup.training.run import Run

STEPS = 7
STORY_DOCUMENTS = 4500  # about 4 MB of text: read once in the default number of steps
HELD_OUT_BYTES = 150_000
QUESTIONS = 200
SHOWN_CHARACTERS = 300
Measures = list[tuple[str, list[float]]]
PROMPTS = ("One spring, in the village of", "User: Tell me a story about a fox.\n\nAssistant:")


class Texts(NamedTuple):
    """What is trained on, and what only the measures see."""

    train: list[str]
    held_out: dict[str, list[str]]
    about: str

    def a_held_out_one(self) -> str:
        """A text that is not trained on."""
        return next(reversed(self.held_out.values()))[0]


class Quickstart(Command):
    """From text to a trained, measured, saved, talking model, on two cores in under five minutes, offline."""

    data: str = "stories"
    """A file or folder of your own text, or a built-in corpus: stories, pydocs, pystdlib."""
    out_dir: Path | None = None
    """The run folder; None makes runs/quickstart-<date>."""
    steps: int = Field(default=240, ge=1)
    """Updates. More steps, better text: the default is for minutes on two cores."""
    vocab_size: int = Field(default=2048, ge=300)
    """Tokens of the tokenizer that is trained."""
    hidden_size: int = Field(default=128, ge=32, multiple_of=32)
    """Width of the model."""
    layers: int = Field(default=4, ge=1)
    """Blocks of the model."""
    batch_size: int = Field(default=12, ge=1)
    """Rows of one update."""
    context_length: int = Field(default=384, ge=32)
    """Tokens the model sees at once."""
    seed: int = Field(default=0, ge=0)
    """Of everything random."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Number format of training (training.precision.dtype)."""
    resume: str | None = None
    """auto (go on with the run in out_dir, if there is one), none, or a path (training.resume)."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""
    dry_run: bool = False
    """Read the text, train the tokenizer, print the settings, the size, the memory and the first batch, and end."""

    def run(self) -> dict[str, Any]:
        """Do all seven steps; the measures and where everything is."""
        from groundup.base.allocator import keep_freed_memory
        from groundup.base.device import choose_device
        from groundup.base.threads import set_threads
        from groundup.pages.run_report import write_report

        keep_freed_memory()
        set_threads(self.threads)
        device = choose_device(self.device)
        recipe = self.recipe()

        announce(1, "Text", "A language model learns from text alone, so what it reads decides what it can do.")
        texts = self.texts(recipe)
        say(f"   {texts.about}")
        say(f"   It begins: {shorten(texts.train[0])!r}")

        announce(2, "Tokenizer", "The model reads numbered pieces of text. Frequent pieces get a number of their own.")
        tokenizer = recipe.tokenizer.train(iter(texts.train))
        show_tokenizer(tokenizer, texts.a_held_out_one())

        if self.dry_run:
            return recipe.describe(recipe.make_model(tokenizer, device), tokenizer, recipe.load_data(tokenizer))

        announce(3, "Baselines", "What simple counting reaches on text it has not seen: the model has to beat it.")
        five_gram = fit_five_gram(texts)
        measures = baseline_measures(texts, five_gram)

        announce(4, "Training", "At every position the model guesses the next token and is corrected.")
        run = self.train(recipe, tokenizer, device)

        announce(5, "Measures", "Bits per byte of unseen text, comparable with any tokenizer and with gzip.")
        rows, answers = self.measure(run, tokenizer, texts, measures, five_gram)

        announce(6, "A folder that others load", "The model is saved in the format of Hugging Face.")
        say(f"   {run.final}: {check_with_transformers(run.final, texts.a_held_out_one())}")

        announce(7, "Report", "Curves, samples and tables on one page that needs no network.")
        following = self.what_next(run)
        self.write_results(run, list(texts.held_out), rows, answers, following)
        report = write_report(run.path)
        say(f"   {report}\n\nWhat to try next:")
        for item in following:
            say(f"   {item['command']:<{max(len(f['command']) for f in following)}}  {item['text']}")
        return {
            "run": str(run.path),
            "model": str(run.final),
            "report": str(report),
            "bits_per_byte": {name: dict(zip(texts.held_out, values, strict=True)) for name, values in rows},
            "questions": dict(answers),
        }

    # -- the parts ----------------------------------------------------------------------------------------------------

    def recipe(self) -> Train:
        """The training that this command stands for; config.yaml in the run folder repeats it."""
        from groundup.training.run import Run

        stories = self.data == "stories"
        return Train(
            model=LlamaConfig(
                vocab_size=self.vocab_size,
                hidden_size=self.hidden_size,
                intermediate_size=self.hidden_size * 11 // 4 // 8 * 8,
                num_hidden_layers=self.layers,
                num_attention_heads=self.hidden_size // 32,
                max_position_embeddings=self.context_length + 128,
                tie_word_embeddings=True,
            ),
            tokenizer=ByteBPEConfig(vocab_size=self.vocab_size, chat="turns"),
            data=DataConfig(
                source=[self.data],
                context_length=self.context_length,
                limit=STORY_DOCUMENTS if stories else None,
                split=Split(validation=0.05 if stories else 0.1),
                seed=self.seed,
            ),
            training=TrainingConfig(
                steps=self.steps,
                batch_size=self.batch_size,
                optimizer=AdamWConfig(lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1),
                schedule=Cosine(warmup_steps=min(30, self.steps // 4), minimum=0.05),
                precision=PrecisionConfig(dtype="auto"),
                evaluate_every=max(1, self.steps // 6),
                sample_every=max(1, self.steps // 2),
                checkpoint_every=max(1, self.steps // 2),
                out_dir=self.out_dir or Run.new_path(name="quickstart"),
                seed=self.seed,
            ),
            evaluate_batches=8,
            prompts=list(PROMPTS if stories else ("",)),
            sample_tokens=80,
            dtype=self.dtype,
            resume=self.resume,
        ).resolved()

    def texts(self, recipe: Train) -> Texts:
        """Training texts, and held-out ones: for the stories, from worlds that no training story knows."""
        from groundup.data.load import read_source
        from groundup.data.split import split_documents

        if self.data not in ("stories", "pydocs", "pystdlib") and not Path(self.data).exists():
            raise UsageError(f"no text at {self.data}: give a file, a folder, or one of stories, pydocs, pystdlib")
        parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for part, document, _ in split_documents(read_source(self.data, recipe.data, self.seed), recipe.data.split):
            parts[part].append(document.text)
        held_out = {"held-out text": within(parts["validation"], HELD_OUT_BYTES)}
        if self.data == "stories":
            held_out = {"known worlds": held_out["held-out text"], "unseen worlds": unseen_worlds(self.seed)}
        if not parts["train"] or not all(held_out.values()):
            raise UsageError(f"{self.data} holds too little text to learn from and to hold some back")
        size = sum(len(text.encode()) for text in parts["train"])
        kept = {name: sum(len(text.encode()) for text in documents) for name, documents in held_out.items()}
        about = f"{len(parts['train']):,} documents, {size / 1e6:.1f} MB to learn from; held back: "
        return Texts(
            parts["train"], held_out, about + ", ".join(f"{n / 1e3:.0f} kB of {name}" for name, n in kept.items())
        )

    def train(self, recipe: Train, tokenizer: "Tokenizer", device: Any) -> "Run":
        """Train with evaluation and samples; the run folder."""
        from groundup.training.run import Run

        data = recipe.load_data(tokenizer)
        model = recipe.make_model(tokenizer, device)
        tokens = self.batch_size * self.context_length
        say(f"   {model.num_parameters():,} parameters, {self.steps} steps of {tokens:,} tokens")
        summary = recipe.fit(model, tokenizer, data)
        return Run(summary["path"])

    def measure(
        self, run: "Run", tokenizer: "Tokenizer", texts: Texts, measures: Measures, five_gram: "KneserNey"
    ) -> tuple[Measures, list[tuple[str, float]]]:
        """Bits per byte of model and baselines; share of questions answered (stories only)."""
        from groundup.evaluation.perplexity import measure
        from groundup.models.hub import load_model

        model = load_model(run.final, dtype="float32")
        own = [measure(model, tokenizer, documents).bits_per_byte for documents in texts.held_out.values()]
        rows = [*measures, ("this model", own)]
        shown = [(name, *(f"{value:.3f}" for value in values)) for name, values in rows]
        say(indent(table(shown, ("bits per byte", *texts.held_out))))
        answers = answer_questions(model, tokenizer, five_gram, self.seed) if self.data == "stories" else []
        if answers:
            shares = [(name, f"{value:.1%}") for name, value in answers]
            say("\n" + indent(table(shares, (f"{QUESTIONS} questions about unseen worlds", "right"))))
        return rows, answers

    def what_next(self, run: "Run") -> list[dict[str, str]]:
        """Commands worth trying."""
        return [
            {"command": f"groundup chat {run.final}", "text": "talk with this model"},
            {"command": f"groundup generate {run.final} 'One day'", "text": "continue a text of yours"},
            {"command": "groundup quickstart --data YOUR_FILE_OR_FOLDER", "text": "the same on your own text"},
            {
                "command": f"groundup quickstart --data {self.data} --steps {4 * self.steps}",
                "text": "four times as long",
            },
            {"command": "groundup train recipes/tiny.yaml", "text": "the recipe of the model that comes with groundup"},
        ]

    def write_results(
        self,
        run: "Run",
        columns: list[str],
        rows: Measures,
        answers: list[tuple[str, float]],
        following: list[dict[str, str]],
    ) -> None:
        """results.json: what the report shows beside the curves; its command is the one that env.json keeps."""
        from groundup.base.files import write_atomic

        tables = [
            {
                "title": "Bits per byte of held-out text",
                "header": ["", *columns],
                "rows": [[name, *(f"{value:.3f}" for value in values)] for name, values in rows],
                "note": "Lower is better. gzip and xz compress the held-out text as one file behind training text.",
            }
        ]
        if answers:
            tables.append(
                {
                    "title": f"{QUESTIONS} questions about unseen stories",
                    "header": ["", "answered correctly"],
                    "rows": [[name, f"{value:.1%}"] for name, value in answers],
                    "note": "Four choices: guessing gives 25 %.",
                }
            )
        last = {name: values[-1] for name, values in rows}
        results = {
            "title": "Quickstart",
            "lead": f"A model trained from nothing on {self.data}, and how it compares with counting.",
            "facts": [
                {"label": "bits per byte", "value": f"{last['this model']:.3f}", "note": columns[-1]},
                {"label": "5-gram model", "value": f"{last['Kneser-Ney 5-gram']:.3f}", "note": "on the same text"},
            ],
            "tables": tables,
            "next": following,
        }
        write_atomic(run.path / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def announce(number: int, title: str, why: str) -> None:
    """The heading of a step: what happens, and why it matters."""
    say(f"\n[{number}/{STEPS}] {title}. {why}")


def shorten(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def indent(text: str) -> str:
    """Three spaces before every line."""
    return "\n".join("   " + line for line in text.split("\n"))


def within(texts: list[str], size: int) -> list[str]:
    """The first texts that make up to `size` characters; a single longer one is cut."""
    kept: list[str] = []
    for text in texts:
        room = size - sum(map(len, kept))
        if room <= 0:
            break
        kept.append(text[:room])
    return kept


def unseen_worlds(seed: int) -> list[str]:
    """Stories documents whose worlds, plots and some names and sentences appear in no training document."""
    from groundup.data.builtin import open_corpus

    return [document.text for document in open_corpus("stories", seed=seed, split="test", bytes=HELD_OUT_BYTES)]


def show_tokenizer(tokenizer: "Tokenizer", sample: str) -> None:
    """What the tokenizer makes of a text it was not trained on."""
    ids = tokenizer.encode(sample[:2000])
    size = len(sample[:2000].encode())
    pieces = "|".join(tokenizer.decode([id]) for id in ids[:16])
    say(f"   {tokenizer.vocab_size:,} tokens; unseen text takes {size / len(ids):.2f} bytes a token: {pieces!r}")


def fit_five_gram(texts: Texts) -> "KneserNey":
    """The 5-gram model of the training bytes."""
    from groundup.evaluation.baselines.kneser_ney import KneserNey

    return KneserNey(order=5).fit([text.encode() for text in texts.train])


def baseline_measures(texts: Texts, five_gram: "KneserNey") -> Measures:
    """Bits per byte of each held-out set under models that only count, or only look for repetitions."""
    from groundup.evaluation.baselines.compressors import Gzip, Xz
    from groundup.evaluation.baselines.counts import Uniform, Unigram

    train = [text.encode() for text in texts.train]
    sets = [[text.encode() for text in documents] for documents in texts.held_out.values()]

    def each(bits: "Callable[[list[bytes]], float]") -> list[float]:
        return [bits(documents) / sum(map(len, documents)) for documents in sets]

    def counting(baseline: "Baseline") -> list[float]:
        return each(lambda documents: sum(map(baseline.bits, documents)))

    rows = [
        ("uniform over bytes", counting(Uniform().fit(train))),
        ("unigram of bytes", counting(Unigram().fit(train))),
        ("Kneser-Ney 5-gram", counting(five_gram)),
        ("gzip", counting(Gzip().fit(train))),
        ("xz", each(Xz().fit(train).behind)),
    ]
    shown = [(name, *(f"{value:.3f}" for value in values)) for name, values in rows]
    say(indent(table(shown, ("bits per byte", *texts.held_out))))
    return rows


def answer_questions(model: Any, tokenizer: "Tokenizer", five_gram: "KneserNey", seed: int) -> list[tuple[str, float]]:
    """The share of questions about unseen stories that each answers correctly."""
    from groundup.data.builtin.stories import questions
    from groundup.evaluation.baselines.baseline import accuracy
    from groundup.evaluation.baselines.overlap import NearestQuestion, NearestSentence
    from groundup.evaluation.harness import evaluate
    from groundup.evaluation.tasks.stories import story_questions

    asked = questions(QUESTIONS, seed=seed, split="test")
    seen = questions(1000, seed=seed, split="train")
    report = evaluate(model, tokenizer, [story_questions(seed, QUESTIONS)], truncate=True)
    return [
        ("guessing", 1 / len(asked[0].choices)),
        ("nearest sentence", accuracy(NearestSentence(), asked)),
        ("nearest training question", accuracy(NearestQuestion().fit(seen), asked)),
        ("Kneser-Ney 5-gram", accuracy(five_gram, asked)),
        ("this model", report["stories", "accuracy_per_token"].value),
    ]


def check_with_transformers(folder: Path, text: str) -> str:
    """Load the folder with transformers and compare the logits; what came of it, in words."""
    import torch

    from groundup.models.hub import load_model
    from groundup.tokenizers.hub import load_tokenizer

    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        return "saved (pip install transformers, and the next run compares the logits)"
    ids = torch.tensor([load_tokenizer(folder).encode(text)[:64]])
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert AutoTokenizer.from_pretrained(folder).encode(text)[:64] == ids[0].tolist()
    with torch.no_grad():
        difference = (load_model(folder, dtype="float32")(ids) - theirs(ids).logits).abs().max().item()
    return f"transformers loads it; the largest difference of the logits is {difference:.1e}"
