"""Who may import whom (docs/architecture.md): read from the source, so imports inside functions count too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SEAM = "llava/model/reduction.py"
BASICS = ("llava.constants", "llava.conversation", "llava.mm_utils")
VERSION = "llava.__version__"
OPS = "llava.deepspeed_ops"
EVAL_BASICS = tuple(f"llava.eval.{name}" for name in ("benchmark", "reading", "writing", "vqa_text"))

# What of `llava` and `dpn` the files of a folder may import. The first folder that fits a file decides.
ALLOWED = [
    ("dpn/analysis/", ("dpn",)),
    ("dpn/", ("dpn",)),
    (SEAM, (*BASICS, "llava.model", "dpn")),
    ("llava/model/", (*BASICS, "llava.model")),
    ("llava/data/__main__.py", (*BASICS, "llava.data", "llava.model.tokenizer")),
    ("llava/data/", (*BASICS, "llava.data")),
    ("llava/train/", (*BASICS, VERSION, OPS, "llava.data", "llava.model", "llava.train")),
    ("llava/eval/benchmarks/", ("llava.constants", *EVAL_BASICS, "llava.eval.benchmarks")),
    ("llava/eval/", (*BASICS, VERSION, "llava.model", "llava.eval")),
    ("llava/serve/", (*BASICS, "llava.model", "llava.eval", "llava.serve")),
    ("llava/bench/", (*BASICS, VERSION, OPS, "llava.model", "llava.bench")),
    ("llava/toy/", (*BASICS, "llava.toy")),
    ("llava/", BASICS),
]
FORBIDDEN = [
    ("dpn/analysis/", ("deepspeed",)),
    ("dpn/", ("deepspeed", "matplotlib", "dpn.analysis")),
]
OPTIONAL = ("deepspeed", "flash_attn", "wandb", "peft", "pyarrow", "openpyxl")


def sources():
    return sorted(
        path.relative_to(ROOT).as_posix()
        for package in ("llava", "dpn")
        for path in (ROOT / package).rglob("*.py")
    )


def imports(tree):
    """Give (line, absolute name, level) of every import; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}", node.level) for alias in node.names)


def lies_in(name, modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def first_fit(table, path):
    return next((modules for prefix, modules in table if path.startswith(prefix)), ())


def violations(path, source):
    for line, name, level in imports(ast.parse(source)):
        if level:
            yield f"{path}:{line} relative import of {name}"
        is_ours = lies_in(name, ("llava", "dpn"))
        is_allowed = not is_ours or lies_in(name, first_fit(ALLOWED, path))
        if not is_allowed or lies_in(name, first_fit(FORBIDDEN, path)):
            yield f"{path}:{line} must not import {name}"


def test_every_file_imports_only_what_its_folder_may():
    found = [problem for path in sources() for problem in violations(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dpn/loss.py", "import llava.model"),
        ("dpn/loss.py", "def f():\n    from llava import constants"),
        ("dpn/loss.py", "import matplotlib.pyplot"),
        ("dpn/analysis/report.py", "from llava.eval.runner import run"),
        ("llava/model/builder.py", "from dpn import flops"),
        ("llava/model/builder.py", "from llava.data import records"),
        ("llava/data/dataset.py", "from llava.model.builder import load_tokenizer"),
        ("llava/eval/runner.py", "import llava.train.trainer"),
        ("llava/eval/benchmarks/pope.py", "from llava.eval.runner import run"),
        ("llava/toy/world.py", "from llava.model import config"),
        ("llava/constants.py", "import llava.model"),
        ("llava/train/train.py", "from . import trainer"),
    ],
)
def test_a_forbidden_import_is_found(path, source):
    assert list(violations(path, source))


def test_the_seam_may_import_dpn():
    assert not list(violations(SEAM, "from dpn.pyramid import PyramidLlamaModel"))


def test_everything_imports_without_the_optional_packages():
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in sources()]
    modules = [module for module in modules if not module.endswith("__main__")]
    script = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
