"""`groundup quantize`: a model folder becomes one whose weights are stored in fewer bits."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, warn
from groundup.base.errors import UsageError
from groundup.base.files import atomic_folder, check_writable
from groundup.commands.command import Command
from groundup.commands.export import check_target, complete_configs, write_tokenizer
from groundup.commands.named_model import model_of

if TYPE_CHECKING:
    from groundup.quantization.config import QuantizationConfig as AnyQuantization
else:
    from groundup.quantization.configs import AnyQuantization


class Quantize(Command):
    """Store a model's weights in fewer bits: `--method.kind nf4`. Methods that look at what flows through the layers
    (gptq, awq, smoothquant) read calibration texts.
    """

    source: CliPositionalArg[str]
    """A run folder (its final/ is taken), a folder or file of weights in any known form, or a name (`tiny`)."""
    out_dir: Path
    """The folder to write: in the layout of bitsandbytes, GPTQ or AWQ, which transformers loads, where the method has
    one, else in our own."""
    method: AnyQuantization
    """How: `--method.kind int8`, int4, nf4, gptq, awq, ..., and the method's settings."""
    calibration: str = "stories"
    """Texts for methods that need them: a file, a folder, or a built-in corpus (stories, pydocs, pystdlib)."""
    samples: int = Field(default=64, ge=1)
    """Rows of calibration text."""
    sample_tokens: int = Field(default=256, ge=2)
    """Tokens of a row, as far as the model's context allows."""
    overwrite: bool = False
    """Replace the model folder that is there already."""
    measure: bool = True
    """Compare the loss on texts, before and after."""

    @model_validator(mode="after")
    def _the_method_is_done_once(self) -> "Quantize":
        if not self.method.frozen:
            raise ValueError("`aware` is a way of training: groundup train --init-from MODEL --quantization.kind aware")
        return self

    def run(self) -> dict[str, Any]:
        """Quantize, write, measure."""
        source = model_of(self.source)
        target = Path(os.path.abspath(self.out_dir.expanduser()))
        check_target(target, source, self.overwrite)
        check_writable(target)
        from groundup.commands.named_model import tokenizer_beside
        from groundup.models.hub import load_model
        from groundup.quantization.calibration import loss_on
        from groundup.quantization.exchange import quantize

        say(f"loading {source}")
        model, tokenizer = load_model(source), tokenizer_beside(source)
        if getattr(model, "quantization", None) is not None or source.endswith(".gguf"):
            raise UsageError(f"{source} is in fewer bits already: begin with the full weights")
        rows = self._rows(model, tokenizer)
        before = loss_on(model, rows) if rows is not None and self.measure else None
        start = time.perf_counter()
        report = quantize(model, self.method, rows if self.method.calibrated else None)
        seconds = time.perf_counter() - start
        say(f"{report}; {seconds:.1f} s")
        with atomic_folder(target, replace=target.exists()) as folder:
            model.save_pretrained(folder)
            complete_configs(folder, source, tokenizer)
            write_tokenizer(folder, source, tokenizer)
            again = load_model(folder)
        after = loss_on(again, rows) if rows is not None and self.measure else None
        if before is not None and after is not None:
            say(f"loss on {self.samples} rows of {self.calibration}: {before:.4f} -> {after:.4f} nats a token")
        size = sum(file.stat().st_size for file in target.iterdir())
        say(f"written to {target}: {as_size(size)}")
        return {
            "source": source,
            "folder": str(target),
            "method": self.method.model_dump(mode="json"),
            "layers": report.layers,
            "bits_per_weight": report.bits_per_weight,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "left": list(report.left),
            "loss_before": before,
            "loss_after": after,
            "bytes": size,
        }

    def _rows(self, model: Any, tokenizer: Any) -> Any:
        """Calibration ids (N, T); None where there is no tokenizer and the method can do without."""
        if tokenizer is None:
            if self.method.calibrated:
                raise UsageError(f"{self.method.kind} reads texts, and {self.source} has no tokenizer beside it")  # type: ignore[attr-defined]
            warn("no tokenizer was found beside the model: the folder has none, and nothing is measured")
            return None
        from groundup.data.config import DataConfig
        from groundup.data.load import read_source
        from groundup.quantization.calibration import token_rows

        length = min(self.sample_tokens, model.config.max_position_embeddings or self.sample_tokens)
        texts = (document.text for document in read_source(self.calibration, DataConfig(source=[self.calibration]), 0))
        return token_rows(texts, tokenizer, length, self.samples)
