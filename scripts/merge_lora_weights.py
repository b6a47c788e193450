#!/usr/bin/env python
"""Write a LoRA directory and its base as one full checkpoint.

python scripts/merge_lora_weights.py --model-path LORA --model-base BASE --save-model-path NEW_FOLDER
"""

from llava.model.commands import run
from llava.model.merge_lora import main

if __name__ == "__main__":
    run(main, "scripts/merge_lora_weights.py")
