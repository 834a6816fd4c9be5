"""A report: one HTML file that opens offline, in any browser, and can be sent as it is.

plotly.js (4.7 MB) stands in the file once; where plotly is not installed the report has the tables alone and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groundup import __version__
from groundup.base.errors import MissingDependency
from groundup.base.files import write_atomic
from groundup.pages.charts import Chart, Table
from groundup.pages.render import inline_script, plotly_js, render, static


@dataclass(frozen=True)
class Fact:
    """One number of the summary, with what it means."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """Text that a model wrote: `when` is the moment in training, `prompt` is what it was given."""

    when: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Samples:
    """Samples in the order they were written."""

    samples: Sequence[Sample]
    command: str = ""

    block = "samples"


@dataclass(frozen=True)
class Code:
    """Text to be shown as it is: settings, a command, an environment."""

    title: str
    text: str
    open: bool = True

    block = "code"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and blocks below it."""

    id: str
    title: str
    text: str = ""
    blocks: Sequence[Chart | Table | Samples | Code] = ()


@dataclass(frozen=True)
class Report:
    """All a report says."""

    title: str
    lead: str
    facts: Sequence[Fact] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""

    def charts(self) -> list[Chart]:
        """The charts of all sections."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Chart)]

    def html(self) -> str:
        """The whole page."""
        figures = {chart.id: chart.figure() for chart in self.charts()}
        scripts, hashes, missing = [], [], ""
        if figures:
            try:
                sources = [plotly_js(), static("charts.js")]
            except MissingDependency as error:
                sources, missing = [], str(error)
            for source in sources:
                script, digest = inline_script(source)
                scripts.append(script)
                hashes.append(digest)
        return render(
            "report.html",
            report=self,
            figures=figures,
            scripts=scripts,
            script_policy=" ".join(hashes) or "'none'",
            charts_missing=missing,
            style=static("style.css"),
            version=__version__,
        )

    def write(self, path: Path) -> Path:
        """Write the page, whole or not at all."""
        write_atomic(path, self.html().encode(errors="replace"))
        return path
