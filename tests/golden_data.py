"""Where the reference data of the original LLaVA lie.

By default the subset in tests/golden/llava; `LLAVA_GOLDEN=<folder>` names the full set, whose cases the same
tests then cover completely.
"""

import os
from functools import cache
from pathlib import Path

SUBSET = Path(__file__).parent / "golden" / "llava"
VARIABLE = "LLAVA_GOLDEN"


@cache
def golden_root() -> Path:
    """Give the folder that holds `common/` and the cases.

    Raises:
        ValueError: LLAVA_GOLDEN names a folder without `common/`.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return SUBSET
    root = Path(named).absolute()  # tests change the working directory
    if not (root / "common").is_dir():
        raise ValueError(
            f"{VARIABLE}={named} holds no common/; name the folder of the full reference data, or unset it "
            f"to use the subset in {SUBSET}"
        )
    return root


def case_folder(kind: str) -> Path:
    """Give the folder of one kind of cases, e.g. "mm", "batch", "train_data", "misc", "variants" or "hf".

    The full set has them below `visible/`, the subset directly. A kind may be absent from the subset.
    """
    root = golden_root()
    return root / "visible" / kind if (root / "visible").is_dir() else root / kind


def is_full() -> bool:
    """Whether the full set is used."""
    return golden_root() != SUBSET
