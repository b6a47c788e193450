"""Golden cases of the original scorers, each packed into one file (see tests/golden/eval/README.md)."""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "golden" / "eval"


def expected(name):
    """Give what the original produced."""
    return _case(name)["expected"]


def unpack(name, folder):
    """Write the inputs of a case below a folder; give what the original produced from them."""
    case = _case(name)
    for path, content in case["inputs"].items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return case["expected"]


def _case(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
