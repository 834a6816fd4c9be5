"""Reports: the figures show the metrics' own numbers, text from outside stays text, and the page stands alone."""

import html
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from groundup.base.errors import DataError
from groundup.pages import render as render_module
from groundup.pages.charts import Chart, Line, Table, show, spread
from groundup.pages.render import json_script
from groundup.pages.report import Code, Fact, Report, Sample, Samples, Section
from groundup.pages.run_report import curves, duration, read_jsonl, read_run, write_report

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--"


def metrics(steps: int = 40) -> list[dict]:
    records = []
    for step in range(1, steps + 1):
        loss = 4 * math.exp(-step / 9) + 1
        records.append(
            {"step": step, "event": "train", "time": step / 2, "loss": loss, "lr": 1e-3 / step, "grad_norm": 1 / step}
        )
        if step % 10 == 0:
            records.append(
                {"step": step, "event": "evaluate", "time": step / 2, "loss": loss + 0.1, "accuracy": 1 - 1 / step}
            )
    return records


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "demo<b>"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics()))
    samples = [{"step": step, "prompt": "Once", "text": f" upon {step} {ATTACK}"} for step in (0, 20, 40)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (folder / "config.yaml").write_text(f"name: '{ATTACK}'\n")
    (folder / "env.json").write_text(json.dumps({"host": ATTACK}))
    results = {
        "title": f"Title {ATTACK}",
        "facts": [{"label": ATTACK, "value": ATTACK}],
        "tables": [{"title": ATTACK, "header": ["model", ATTACK], "rows": [[ATTACK, 1.5]], "best": [0]}],
        "next": [{"text": ATTACK, "command": ATTACK}],
        "command": f"groundup {ATTACK}",
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


class Elements(HTMLParser):
    """The elements of a page, and the text inside <script> elements."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data
        self.text.append(data)


def figures_of(html: str) -> dict:
    return json.loads(re.search(r'id="figures">(.*?)</script>', html, re.S)[1])


@pytest.mark.row("EVAL-20", reference="property: the figures hold the numbers of metrics.jsonl; plotly validates them")
def test_curves_show_the_metrics(run):
    plotly = pytest.importorskip("plotly.graph_objects")
    figures = figures_of(write_report(run).read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for key, lines in {
        "loss": {"training": "train", "validation": "evaluate"},
        "accuracy": {"validation": "evaluate"},
    }.items():
        figure = figures[f"chart-{key}"]
        plotly.Figure(figure | {"data": [trace | {"line": {"width": 2}} for trace in figure["data"]]})
        assert [trace["name"] for trace in figure["data"]] == list(lines)
        for trace, event in zip(figure["data"], lines.values(), strict=True):
            expected = [(record["step"], record[key]) for record in records if record["event"] == event]
            assert list(zip(trace["x"], trace["y"], strict=True)) == expected


def test_every_metric_has_a_chart_and_time_has_none():
    names = [chart.id for chart in curves([*metrics(), {"step": 41, "event": "train", "router_load": 0.5}], "")]
    assert names == ["chart-loss", "chart-accuracy", "chart-lr", "chart-grad_norm", "chart-router_load"]


def test_prefixed_validation_numbers_join_their_curve():
    (chart,) = curves(
        [{"step": 1, "event": "train", "loss": 2.0}, {"step": 1, "event": "evaluate", "validation_loss": 3.0}], ""
    )
    assert [(line.name, list(line.y)) for line in chart.lines] == [("training", [2.0]), ("validation", [3.0])]


def test_text_from_outside_stays_text(run):
    html = write_report(run).read_text()
    page = Elements(html)
    assert len(page.scripts) == 3  # the figures, plotly.js and charts.js: none from the run
    assert not [
        tag for tag, attributes in page.tags if tag == "img" or any(name.startswith("on") for name in attributes)
    ]
    assert html.count(ATTACK) == 0
    assert "".join(page.text).count("alert(1)") >= 8
    assert "demo&lt;b&gt;" in html


def test_json_in_a_script_cannot_leave_it():
    text = json_script({"a": ATTACK, "b": "\u2028 & é"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": ATTACK, "b": "\u2028 & é"}


def test_page_stands_alone(run):
    html = write_report(run).read_text()
    page = Elements(html)
    assert not [
        tag for tag in page.tags if any(value and value.startswith(("http", "//")) for value in tag[1].values())
    ]
    assert not [tag for tag, attributes in page.tags if tag == "script" and "src" in attributes]
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_every_figure_has_a_table_and_its_command(run):
    html = write_report(run).read_text()
    figures = re.findall(r"<figure.*?</figure>", html, re.S)
    assert len(figures) == 6
    assert all("groundup " in figure.partition("made by")[2] for figure in figures)
    charts = [figure for figure in figures if "data-figure" in figure]
    assert len(charts) == 4
    assert all("<table>" in chart for chart in charts)


def test_the_command_is_the_one_that_env_json_keeps(run):
    (run / "results.json").unlink()
    for words, shown in (
        (
            ["/opt/bin/groundup", "quickstart", "--data", "my notes", "--steps", "9"],
            "groundup quickstart --data 'my notes'",
        ),
        (["/x/groundup/__main__.py", "train", "r.yaml"], "groundup train r.yaml"),
        (["mine.py", "--fast"], "python mine.py --fast"),
    ):
        (run / "env.json").write_text(json.dumps({"command": words}))
        figures = re.findall(r"<figure.*?</figure>", write_report(run).read_text(), re.S)
        assert figures
        assert all(shown in html.unescape(figure.partition("made by")[2]) for figure in figures)


def test_without_plotly_the_numbers_remain(run, monkeypatch):
    monkeypatch.setattr(render_module.importlib.util, "find_spec", lambda name: None)
    render_module.plotly_js.cache_clear()
    html = write_report(run).read_text()
    render_module.plotly_js.cache_clear()
    assert "pip install &#39;groundup[plots]&#39;" in html
    assert "data-figure" not in html
    assert html.count("<table>") == 5
    assert len(html) < 100_000


def test_non_finite_numbers_leave_gaps(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "event": "train", "loss": NaN}\n{"step": 42, "event": "train", "loss": Infinity}\n')
    assert figures_of(write_report(run).read_text())["chart-loss"]["data"][0]["y"][-2:] == [None, None]


def test_torn_last_line_is_left_out_and_a_broken_one_is_named(run):
    path = run / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 41, "ev')
    assert len(read_jsonl(path)) == len(metrics())
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        write_report(run)


def test_empty_run_has_a_report(tmp_path):
    assert "Run " in write_report(tmp_path).read_text()
    with pytest.raises(DataError, match="no run folder"):
        write_report(tmp_path / "absent")


def test_summary_of_a_run_without_results(run):
    (run / "results.json").unlink()
    facts = {fact.label: fact.value for fact in read_run(run).facts}
    best = min(record["loss"] for record in metrics() if record["event"] == "evaluate")
    assert facts == {
        "steps": "40",
        "training loss": show(metrics()[-2]["loss"]),
        "validation loss": show(best),
        "time": "20 s",
    }


def test_many_samples_are_thinned(run):
    (run / "samples.jsonl").write_text(
        "".join(json.dumps({"step": step, "prompt": "", "text": "x"}) + "\n" for step in range(100))
    )
    (section,) = [section for section in read_run(run).sections if section.id == "samples"]
    moments = [sample.when for sample in section.blocks[0].samples]
    assert len(moments) == 6
    assert (moments[0], moments[-1]) == ("before training", "after training (99 steps)")


def test_long_lines_keep_their_last_point():
    line = Line("training", list(range(100_001)), [float(i) for i in range(100_001)])
    (trace,) = Chart("c", "t", "x", "y", [line]).figure()["data"]
    assert len(trace["x"]) <= 4001
    assert trace["x"][-1] == 100_000


def test_table_of_a_chart_covers_both_ends():
    chart = Chart(
        "c", "t", "step", "y", [Line("a", list(range(101)), [i / 7 for i in range(101)]), Line("b", [100], [None])]
    )
    table = chart.table()
    assert [table.rows[0], table.rows[-1]] == [["0", "0", "-"], ["100", "14.29", "-"]]
    assert len(table.rows) == 20


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (3, "3"),
        (1234567, "1,234,567"),
        (0.000123456, "0.0001235"),
        (2.0, "2"),
        (12345.6, "12,346"),
        (math.nan, "nan"),
        (True, "True"),
    ],
)
def test_show(value, shown):
    assert show(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(59.4, "59 s"), (59.6, "1 min 00 s"), (192, "3 min 12 s"), (18420, "5 h 07 min")]
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown


def test_spread():
    assert spread([1, 2], 3) == [1, 2]
    assert spread(list(range(11)), 3) == [0, 5, 10]


def test_report_from_plain_data(tmp_path):
    blocks = [
        Table("Measures", ["model", "bits"], [["ours", "1"]]),
        Samples([Sample("after", "p", "t")]),
        Code("Chat", "groundup chat"),
    ]
    report = Report("A title", "A lead", [Fact("steps", "10")], [Section("one", "One", "Text", blocks)])
    page = report.write(tmp_path / "report.html").read_text()
    assert all(text in page for text in ("A title", "A lead", "Measures", "groundup chat"))
    assert "Plotly" not in page  # no charts: nothing to draw with


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM or not sys.platform.startswith("linux"), reason="no chromium here")
def test_charts_are_drawn_without_console_errors(run, tmp_path):
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()
    )
    flags += ["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=4000"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{write_report(run)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('class="scatterlayer') == 4
