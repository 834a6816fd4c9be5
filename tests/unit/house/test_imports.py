"""The house: folders import only from those above; settings load without torch; nothing is unpickled or evaluated."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src"
PACKAGE = SOURCE / "groundup"

# From the foundation up. Rooms on one line do not import each other.
ORDER = """
base
pages catalogue
tokenizers
layers
state weights
models
replace observe
adapters quantization parallel
estimates
data
generation
prompting evaluation
training
alignment
serving retrieval agents society
benchmarks
commands
cli
__main__ studio course
"""
FLOOR = {room: floor for floor, line in enumerate(ORDER.split("\n")) for room in line.split()}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`groundup.base.config` of src/groundup/base/config.py; a package's name stands for its __init__.py."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The folder or file directly under groundup; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: what stands under `if TYPE_CHECKING:` is left out, what stands inside functions is not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                yield child
                yield from runtime_nodes(child)
            continue
        yield node
        yield from runtime_nodes(node)


DYNAMIC = {"importlib.import_module", "import_module", "__import__"}


def literal(node: ast.AST) -> str:
    """The text of a literal; empty for anything else."""
    return str(node.value) if isinstance(node, ast.Constant) else ""


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import that runs, relative and dynamic ones with a plain name included."""
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = module.split(".") if is_package else module.split(".")[:-1]
            base = ".".join(up[: len(up) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            if name == "groundup":
                yield from ((node.lineno, f"groundup.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, name
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in DYNAMIC and node.args:
            yield node.lineno, literal(node.args[0])


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a module that go up or sideways in the house."""
    room, wrong = room_of(module), []
    if not room:  # groundup/__init__.py only points at the rooms
        return wrong
    if room not in FLOOR:
        return [f"{module}: the room `{room}` has no place in ORDER (tests/unit/house/test_imports.py)"]
    for line, name in imports(source, module, is_package):
        target = room_of(name)
        if not name.startswith("groundup") or target == room or target not in FLOOR:
            continue
        if FLOOR[target] >= FLOOR[room]:
            wrong.append(f"{module}:{line} imports {name}: `{room}` stands below or beside `{target}`")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down(path):
    assert not wrong_imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("groundup.base.config", "import groundup.pages.report"),
        ("groundup.pages.report", "def f():\n    from groundup.tokenizers import bpe"),
        ("groundup.pages.report", "from groundup import training"),
        ("groundup.state", "from groundup.weights import WeightMap"),
        ("groundup.layers.attention", "from ..state import State"),
        ("groundup.models.hub", "import importlib\nimportlib.import_module('groundup.training.loop')"),
        ("groundup.kitchen.pans", ""),
    ],
)
def test_a_wrong_import_is_seen(module, source):
    assert wrong_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "groundup.layers.attention",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from groundup.state import State",
        ),
        ("groundup.models.text.llama", "from ...state import State\nfrom .causal_lm import CausalLM"),
        ("groundup.base.config", "from groundup import __version__"),
        ("groundup.cli", "from groundup.commands.parse import parse"),
    ],
)
def test_a_right_import_passes(module, source):
    assert not wrong_imports(source, module)


# Settings are read before anything heavy is loaded: the command line starts fast.
SETTINGS = [path for path in FILES if path.parent.name == "commands" or path.name == "config.py"]


@pytest.mark.parametrize("path", SETTINGS, ids=module_name)
def test_settings_import_no_torch(path):
    top = ast.parse(path.read_text(encoding="utf-8")).body
    names = [name for node in top for _, name in imports(ast.unparse(node), module_name(path)) if at_import(node)]
    assert not [name for name in names if name.split(".")[0] in ("torch", "transformers", "numba", "plotly")]


def at_import(node: ast.AST) -> bool:
    """Whether a top-level statement's imports run when the module is imported."""
    return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def test_settings_load_without_torch():
    modules = ", ".join(module_name(path) for path in SETTINGS)
    assert "torch" not in modules_after(f"import {modules}")


FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unsafe(source: str) -> list[str]:
    """Where a module could run what a file says: pickles, eval, exec, torch.load of more than weights."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            safe_load = name == "torch.load" and keywords.get("weights_only") == "True"
            array_pickle = keywords.get("allow_pickle", "False") != "False"
            if name in ("eval", "exec") or (name == "torch.load" and not safe_load) or array_pickle:
                found.append(f"line {node.lineno}: {name}(...)")
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_is_unpickled_or_evaluated(path):
    assert not unsafe(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval('1')",
        "exec('x')",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_unsafe_calls_are_seen(source):
    assert unsafe(source)


def test_safe_calls_pass():
    assert not unsafe("torch.load(path, weights_only=True)\nmodel.eval()\nnp.load(path, allow_pickle=False)")


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded in a fresh interpreter after `code`."""
    program = f"{code}\nimport sys; print('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_groundup_is_light():
    assert not modules_after("import groundup") & {"torch", "numpy", "pydantic", "yaml"}


def test_help_is_light():
    code = "from groundup.cli import main; assert main(['--help']) == 0"
    assert not modules_after(code) & {"torch", "numpy", "pydantic", "pydantic_settings", "jinja2", "plotly"}
