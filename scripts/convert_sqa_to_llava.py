#!/usr/bin/env python
"""Write ScienceQA's problems as LLaVA's training records or as instruction lines.

python scripts/convert_sqa_to_llava.py --help
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation, as upstream's

from llava.eval.convert_sqa import main

if __name__ == "__main__":
    main()
