"""Pre-training text for the base: many blocks of text about one board, packed behind its cells.

Shapes: B boards, L tokens, G = 64 cells.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.toy.questions import (
    OCR_LINE,
    SUFFIX,
    TIMES,
    Question,
    all_words,
    ask,
    ask_text_only,
    describe,
    state_facts,
    telegram,
)
from llava.toy.tokenizer import SYSTEM
from llava.toy.world import (
    COLORS,
    COLUMNS,
    DIGITS,
    EMPTY,
    PATTERNS,
    ROWS,
    SIDE,
    Scene,
    patterned_scene,
    random_scene,
)

NUM_CELLS = SIDE * SIDE
_BLOCKS = 7
_NUM_FACTS = (8, 18)
_ENDS = {"instruction": SUFFIX, "ocr": OCR_LINE + SUFFIX}
_CAPTION_CELLS = (6, 16)
"""Cells read out in a caption, and facts stated: beside questions, and without any."""


@dataclass(frozen=True, kw_only=True)
class Diet:
    """What a batch holds."""

    facts: dict[str, float]
    """Share of each kind among the facts that are stated; they add up to 1."""
    whole_facts: float = 0.0
    """Share of the facts that are stated in their question's whole wording, the others in telegram style."""
    kinds: dict[str, float] = field(default_factory=dict)
    """How often each kind of question appears, relative to each other; unused where no questions come."""
    forms: dict[str, float] = field(default_factory=dict)
    """How often a question comes as a telegram, bare, with the instruction, and with an OCR line too."""
    has_captions: bool = True
    """Whether cells are read out, too."""
    has_patterns: bool = True
    """Whether boards without questions may be uniform or striped, where facts can be guessed."""


_WHOLE = {"telegram": 0.0, "bare": 0.6, "instruction": 0.3, "ocr": 0.1}
_SHORT = {"telegram": 0.25, "bare": 0.3, "instruction": 0.3, "ocr": 0.15}
_ALL_FACTS = {"exist": 0.25, "compare": 0.1, "count": 0.1, "jump": 0.55}
LOOKUPS = Diet(
    facts={"exist": 0.3, "digit": 0.15, "jump": 0.55}, whole_facts=0.5, has_captions=False, has_patterns=False
)
READING = Diet(
    facts={"exist": 0.25, "digit": 0.1, "jump": 0.65},
    whole_facts=0.3,
    kinds={"exist": 1.5, "compare": 1, "count": 1, "color": 1, "digit": 2, "jump1": 2.75, "jump2": 2.75},
    forms=_WHOLE,
)
COARSE = Diet(
    facts=_ALL_FACTS,
    kinds={"exist": 3, "compare": 2, "count": 2, "color": 0.7, "digit": 1, "jump1": 1.2, "jump2": 1.5},
    forms=_WHOLE,
)
COARSE_AND_SHORT = Diet(
    facts=_ALL_FACTS,
    kinds={"exist": 5, "compare": 3, "count": 3, "color": 0.6, "digit": 0.6, "jump1": 1, "jump2": 1},
    forms=_SHORT,
)


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Boards with their text; every block of text sees the common start and itself only."""

    ids: Tensor
    """(B, L) token ids; zeros where cells stand."""
    cell_words: Tensor
    """(B, G, 4) token ids of each cell's words, padded with -1."""
    first_cell: int
    """Where the cells start, the same in every row."""
    blocks: Tensor
    """(B, L) number of the block: 0 is the common start, -1 is padding."""
    positions: Tensor
    """(B, L) position of each token, as if its block were alone behind the start."""
    targets: Tensor
    """(B, L) the id to predict at each position, or -100."""
    answers: list[tuple[int, int, str]]
    """(row, position that predicts the answer, kind of question)."""


class TextSource:
    """Draws batches of text about random boards."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rng: Generator, diet: Diet) -> None:
        self.rng = rng
        self.encode = lru_cache(maxsize=100_000)(lambda text: tuple(_ids(tokenizer, text)))
        self.word = {word: _ids(tokenizer, word)[0] for word in all_words()}
        self.bos, self.eos = _ids(tokenizer, "<s>")[0], _ids(tokenizer, "</s>")[0]
        self.start = [self.bos, *_ids(tokenizer, f"{SYSTEM} USER: ")]
        self.diet = diet
        self.shares = {kind: share / sum(diet.kinds.values()) for kind, share in diet.kinds.items()}

    def batch(self, num_boards: int, *, plain: bool = False) -> TextBatch:
        """Draw a batch: questions in the chat template, or captions alone as in LLaVA's stage 1."""
        start = [self.bos] if plain else self.start
        rows, cells, answers = [], [], []
        for index in range(num_boards):
            scene = self._plain_scene() if plain else random_scene(self.rng)
            cells.append(self._cell_words(scene))
            row = _Row(start)
            for kind, ids, num_answer in self._captions(scene) if plain else self._blocks(scene):
                position = row.add(ids, num_answer)
                answers.append((index, position, kind))
            rows.append(row)
        length = max(len(row.ids) for row in rows)
        return TextBatch(
            ids=_pad([row.ids for row in rows], length, 0),
            cell_words=torch.tensor(np.array(cells)),
            first_cell=len(start),
            blocks=_pad([row.blocks for row in rows], length, -1),
            positions=_pad([row.positions for row in rows], length, 0),
            targets=_pad([row.targets for row in rows], length, -100),
            answers=answers,
        )

    def _cell_words(self, scene: Scene) -> np.ndarray:
        """Token ids (G, 4) of row, column, digit and color of each cell; -1 pads empty cells."""
        out = np.full((NUM_CELLS, 4), -1)
        for cell in range(NUM_CELLS):
            row, column = divmod(cell, SIDE)
            words = (ROWS[row], COLUMNS[column], *scene.words(row, column))
            out[cell, : len(words)] = [self.word[word] for word in words]
        return out

    def _plain_scene(self) -> Scene:
        if not self.diet.has_patterns:
            return random_scene(self.rng)
        return patterned_scene(self.rng, str(self.rng.choice(list(PATTERNS), p=list(PATTERNS.values()))))

    def _captions(self, scene: Scene) -> list[tuple[str, list[int], int]]:
        texts = {}
        if self.diet.has_captions:
            texts["caption"] = describe(scene, self.rng, _CAPTION_CELLS[1])
        texts["facts"] = self._facts(scene, _NUM_FACTS[1])
        encoded = {kind: list(self.encode(text + "\n")) for kind, text in texts.items()}
        return [(kind, ids, len(ids)) for kind, ids in encoded.items()]

    def _facts(self, scene: Scene, count: int) -> str:
        return state_facts(scene, self.rng, count, self.diet.facts, self.diet.whole_facts)

    def _blocks(self, scene: Scene) -> list[tuple[str, list[int], int]]:
        facts = self._facts(scene, _NUM_FACTS[0])
        told = [
            Question("Describe the image.", describe(scene, self.rng, _CAPTION_CELLS[0]), "caption", ""),
            Question("State some facts.", facts, "facts", ""),
        ]
        kinds = self.rng.choice(list(self.shares), size=_BLOCKS, p=list(self.shares.values()))
        questions = [ask(kind, scene, self.rng) for kind in kinds]
        questions.append(ask_text_only(self.rng))
        return [self._exchange(question) for question in [*told, *questions]]

    def _exchange(self, question: Question) -> tuple[str, list[int], int]:
        """Encode what follows the image in a chat: (kind, ids with answer and end, number of answer ids)."""
        form = str(self.rng.choice(list(self.diet.forms), p=list(self.diet.forms.values())))
        text = question.text
        if question.kind not in ("caption", "facts"):
            text = telegram(text) if form == "telegram" else text + _ENDS.get(form, "")
        prompt = self.encode(f"\n{text} ASSISTANT:")
        answer = (*self.encode(question.answer), self.eos)
        return question.kind, [*prompt, *answer], len(answer)


class _Row:
    """One board's tokens under construction."""

    def __init__(self, start: list[int]) -> None:
        self.length = len(start) + NUM_CELLS
        self.ids = [*start, *[0] * NUM_CELLS]
        self.blocks = [0] * self.length
        self.positions = list(range(self.length))
        self.targets = [-100] * self.length
        self.count = 0

    def add(self, ids: list[int], num_answer: int) -> int:
        """Append a block with its last `num_answer` ids to be predicted; return who predicts the first."""
        self.count += 1
        first = len(self.ids)
        self.ids += ids
        self.blocks += [self.count] * len(ids)
        self.positions += range(self.length, self.length + len(ids))
        # A token predicts its successor in the block, so the first of a block is never predicted.
        num_hidden = max(len(ids) - num_answer - 1, 0)
        self.targets += [-100] * num_hidden + ids[num_hidden + 1 :] + [-100]
        return first + num_hidden


def attention_mask(blocks: Tensor) -> Tensor:
    """Additive mask (B, 1, L, L): a token sees the earlier tokens of the start and of its own block."""
    length = blocks.shape[1]
    query, key = blocks[:, :, None], blocks[:, None, :]  # (B, L, 1), (B, 1, L)
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    is_seen = earlier & ((key == 0) | (key == query))
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(is_seen.shape).masked_fill(~is_seen, hidden)[:, None]  # (B, 1, L, L)


def word_groups(source: TextSource) -> dict[str, list[int]]:
    """Token ids of the words for rows, columns, digits, colors, emptiness and jumps."""
    groups = {
        "row": ROWS,
        "column": COLUMNS,
        "digit": DIGITS,
        "color": COLORS,
        "empty": (EMPTY,),
        "times": TIMES,
    }
    return {name: [source.word[word] for word in words] for name, words in groups.items()}


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _pad(rows: list[list[int]], length: int, value: int) -> Tensor:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
