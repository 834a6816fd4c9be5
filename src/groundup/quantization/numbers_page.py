"""The page of `groundup numbers`: where the numbers of each format lie, and how far apart."""

from pathlib import Path

from groundup.pages.charts import Chart, Line, Table, show
from groundup.pages.report import Report, Section
from groundup.quantization.numbers import FORMATS, BlockFloat, FloatFormat

COMMAND = "groundup numbers --out-dir DIR"
SMALL = ("fp8 e4m3", "fp8 e5m2", "int4", "nf4", "mxfp4")
LINE_ENDS = 8.0


def write_page(path: Path) -> Path:
    """Write the page; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return page().write(path)


def page() -> Report:
    """The page as data."""
    return Report(
        title="Number formats",
        lead="A format of few bits has few numbers: exponent bits spread them far, mantissa bits set them close.",
        sections=[
            Section("line", "Where the numbers lie", "", [number_line()]),
            Section("spacing", "How far apart they are", "", [spacings(), errors()]),
            Section("formats", "The formats", "", [figures()]),
            Section("values", "All numbers of the small formats", "", [values()]),
        ],
        footer=f"Made by: {COMMAND}",
    )


def number_line() -> Chart:
    """Every number of the small formats between -8 and 8, a row each."""
    lines = []
    for i, name in enumerate(SMALL):
        near = [v for v in FORMATS[name].values() if abs(v) <= LINE_ENDS]
        lines.append(Line(name, near, [len(SMALL) - i] * len(near), series=i, points=True))
    note = (
        "Floats stand closer together towards zero, integers evenly, NF4 as weights do. Blocks of int4, nf4 and mxfp4 "
        f"are stretched by a scale. From -{LINE_ENDS:g} to {LINE_ENDS:g}."
    )
    return Chart(
        "chart-line", "The number line", "value", "", lines, note=note, command=COMMAND, y_names=list(reversed(SMALL))
    )


def spacings() -> Chart:
    """The distance to the next number against the magnitude, both in powers of ten."""
    return _against_magnitude(
        "chart-spacing",
        "Spacing against magnitude",
        "distance to the next number",
        "A step up at each power of two: as many numbers lie between 1 and 2 as between 1024 and 2048. Level at the "
        "left end, where numbers are subnormal.",
        lambda form, x: form.spacing(x),
    )


def errors() -> Chart:
    """Half the spacing over the magnitude: the worst relative error of rounding."""
    return _against_magnitude(
        "chart-error",
        "Worst relative error of rounding",
        "half the spacing / magnitude",
        "Mantissa bits set the level, exponent bits how far it goes on.",
        lambda form, x: form.spacing(x) / 2 / x,
    )


def _against_magnitude(id: str, title: str, y_label: str, note: str, of) -> Chart:
    floats = [form for form in FORMATS.values() if isinstance(form, FloatFormat)]
    lines = []
    for i, form in enumerate(floats):
        reach = [2.0**e for e in range(-40, 41) if form.smallest_subnormal <= 2.0**e <= form.largest]
        lines.append(Line(form.name, reach, [of(form, x) for x in reach], series=i))
    note = f"{note} From 2^-40 to 2^40; fp32, tf32 and bf16 reach from about 1e-38 to 3e38."
    return Chart(id, title, "magnitude", y_label, lines, note=note, command=COMMAND, log_x=True, log_y=True)


def figures() -> Table:
    """Bits, range and spacing of each."""
    rows = []
    for form in FORMATS.values():
        element = form.element if isinstance(form, BlockFloat) else form
        if isinstance(element, FloatFormat):
            parts = f"1 + {element.exponent_bits} + {element.mantissa_bits}"
            figures = [element.largest, element.smallest_normal, element.smallest_subnormal, element.spacing(1.0)]
        else:
            parts, figures = "-", [element.numbers[-1], None, None, 1.0 if form.name.startswith("int") else None]
        scale = "-" if isinstance(form, FloatFormat) else f"a block of {form.block}" if form.block else "-"
        cells = [show(x) if x is None or 1e-3 < x < 1e6 else f"{x:.4g}" for x in figures]
        rows.append([form.name, str(form.bits), parts, *cells, scale, form.source])
    header = ["format", "bits", "sign + exponent + mantissa", "largest", "smallest normal", "smallest subnormal"]
    return Table("", [*header, "spacing at 1", "a scale for", "source"], rows, command="groundup numbers")


def values() -> Table:
    """The numbers from zero up, as text."""
    rows = []
    for name in SMALL:
        numbers = FORMATS[name].values()
        listed = numbers if name == "nf4" else [v for v in numbers if v >= 0]
        rows.append([name, str(len(numbers)), ", ".join(f"{v:.7g}" for v in listed)])
    note = "Negative ones mirror these, but for NF4, and for int4, which has -8 besides."
    header = ["format", "how many", "zero and above (nf4: all)"]
    return Table("", header, rows, note=note, command="groundup numbers", prose=True)
