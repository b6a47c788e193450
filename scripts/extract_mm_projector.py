#!/usr/bin/env python
"""Take the projector out of a full checkpoint, for --pretrain_mm_mlp_adapter.

python scripts/extract_mm_projector.py --model-path CHECKPOINT --output mm_projector.bin
"""

from llava.model.commands import run
from llava.model.extract_projector import main

if __name__ == "__main__":
    run(main, "scripts/extract_mm_projector.py")
