"""A small sentencepiece tokenizer in Llama's style, trained on the sentences of the small world."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece

from llava.toy.questions import KINDS, OCR_LINE, SUFFIX, all_words, ask, ask_text_only, describe, state_facts
from llava.toy.world import COLORS, COLUMNS, DIGITS, ROWS, random_scene

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""System text of the template v1."""
_FIRST_WORDS = ("USER", "ASSISTANT", "Which", "Is", "Are", "How", "What", "Jump", "Answer", "Reference")
"""Words that follow a line break or `</s>`, where no space precedes them: their pieces have no `▁`."""
_VOCABULARY = 768


def train_tokenizer(folder: Path) -> None:
    """Write `tokenizer.model` and the two JSON files that a Vicuna directory has."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(),
        model_writer=model,
        model_type="bpe",
        vocab_size=_VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        num_threads=1,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": 2048,
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        **special,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)


def _sentences() -> Iterator[str]:
    """Yield the world's sentences, its single words, and some English for everything else."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = random_scene(rng)
        yield describe(scene, rng, 16)
        yield state_facts(scene, rng, 8, {"exist": 0.3, "compare": 0.1, "count": 0.1, "jump": 0.5})
        for kind in KINDS:
            yield ask(kind, scene, rng).text
        yield ask_text_only(rng).text
        yield f"{SYSTEM} USER: ASSISTANT: yes no"
        yield SYSTEM.replace("user", "human")
        yield OCR_LINE.strip()
        yield SUFFIX.strip()
        yield from (f"({word})" for word in _FIRST_WORDS)  # "(" stands where a line break would
        yield " ".join((*all_words(), *COLORS, *ROWS, *COLUMNS, *DIGITS))
    yield "".join(chr(code) for code in range(33, 127))
    yield from _ENGLISH


_ENGLISH = (
    "Describe the image in detail.",
    "What is the person in the picture wearing?",
    "What can you see in this photograph?",
    "The picture shows a board of small digits in several colors.",
)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
