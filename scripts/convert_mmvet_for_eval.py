#!/usr/bin/env python
"""Upstream's name and flags for `python -m llava.eval.export mmvet`.

python scripts/convert_mmvet_for_eval.py --help
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation, as upstream's

from llava.eval import converters

if __name__ == "__main__":
    converters.run(converters.mmvet)
