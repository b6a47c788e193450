"""Pre-train the tiny base: a plain Llama that reads boards whose cells are sums of word embeddings.

Shapes: B boards, L tokens, G = 64 cells, D model width, N supervised positions.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from llava.toy.pretrain.batches import (
    COARSE,
    COARSE_AND_SHORT,
    LOOKUPS,
    READING,
    Diet,
    TextBatch,
    TextSource,
    attention_mask,
    word_groups,
)
from llava.toy.pretrain.wiring import wire
from llava.toy.tokenizer import train_tokenizer

_MAX_NOISE = 0.06
"""Largest standard deviation of the noise on a cell's vector, whose words have norm 1 each."""
_WIDTH = 64
_REPORT_EVERY = 25
_STAMP = "phase.json"
"""What a finished phase was made by."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of the curriculum, with an optimizer and a learning-rate schedule of its own."""

    seed: int
    """Seed of weights, boards and noise."""
    steps: int
    """Optimizer steps."""
    diet: Diet
    """Which questions come, and in which form."""
    plain_share: float = 0.0
    """Share of the steps, at the beginning, that hold captions and facts only, which are short."""
    accent_share: float = 0.5
    """Share of the boards with an accent, like that of a projector that is still learning."""
    snapshot_every: int = 0
    """Steps between the weights that are saved on the way, for looking at them; 0: none. A save draws random
    numbers (the start of the copy), so that another interval gives other weights."""


CURRICULUM = (
    Phase(seed=0, steps=1500, diet=LOOKUPS, plain_share=1.0, accent_share=0.0, snapshot_every=100),
    Phase(seed=11, steps=800, diet=LOOKUPS, plain_share=1.0),
    Phase(seed=0, steps=1000, diet=READING, plain_share=0.25),
    Phase(seed=5, steps=500, diet=COARSE),
    Phase(seed=5, steps=400, diet=COARSE_AND_SHORT),
)
"""Looking up, jumping and what is there come first, while nothing else pulls at the wired heads: where
captions came along from the start, jumps were learned in one run of nine, and where existence came later, it
was read off the cells in layer 6 instead of 2 to 4, so that pooling in between destroyed it. Accents come
once jumps are there: with accents on all boards before that they were never learned. Then whole sentences,
then what a whole image holds; short forms at the end teach how an answer is passed on."""


def train_base(
    folder: Path,
    report: Callable[[str], None],
    *,
    curriculum: Sequence[Phase] = CURRICULUM,
    batch: int = 16,
    rate: float = 2e-3,
) -> dict[str, float]:
    """Train tokenizer and model, save them in Vicuna's layout, return the accuracy by kind of question.

    Every phase starts from what the last one has saved in half precision, in FOLDER-phases, so that a run
    that was cut off goes on behind its last finished phase and ends at the same weights.

    Raises:
        ValueError: the phases that are there were made by another curriculum.
    """
    phases = folder.with_name(f"{folder.name}-phases")
    train_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = None
    for number, phase in enumerate(curriculum, start=1):
        place = phases / str(number)
        made_by = json.dumps([asdict(done) for done in curriculum[:number]] + [batch, rate], indent=1)
        if _is_done(place, made_by):
            report(f"base, phase {number}: done before")
        else:
            model = _first_model(tokenizer, phase) if number == 1 else _load(phases / str(number - 1))
            _run_phase(
                model,
                tokenizer,
                phase,
                (batch, rate),
                place,
                lambda line, n=number: report(f"base, phase {n}: {line}"),
            )
            _keep(model, place, made_by)
    model = _load(phases / str(len(curriculum)))
    save_base(model, folder)
    return measure(model, TextSource(tokenizer, np.random.default_rng(0), curriculum[-1].diet))


def _is_done(place: Path, made_by: str) -> bool:
    """Tell whether a phase lies there; ValueError where another one does."""
    stamp = place / _STAMP
    if not stamp.is_file():
        return False
    if stamp.read_text(encoding="utf-8") != made_by:
        raise ValueError(
            f"{place} was made by another curriculum: remove {place.parent} or take a new folder"
        )
    return True


def _first_model(tokenizer: PreTrainedTokenizerBase, phase: Phase) -> LlamaForCausalLM:
    """Make the wired model that the first phase starts from."""
    torch.manual_seed(phase.seed)
    model = LlamaForCausalLM(_config(len(tokenizer)))
    wire(model, word_groups(TextSource(tokenizer, np.random.default_rng(phase.seed), phase.diet)))
    return model


def _run_phase(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    phase: Phase,
    shape: tuple[int, float],
    place: Path,
    report: Callable[[str], None],
) -> None:
    """Train through one phase, with `shape` the batch and the learning rate; snapshots go to `place`."""
    torch.manual_seed(phase.seed)
    source = TextSource(tokenizer, np.random.default_rng(phase.seed), phase.diet)
    began = time.monotonic()
    hits: dict[str, list[float]] = defaultdict(list)
    for step, (sample, logits, loss) in enumerate(_steps(model, source, phase, *shape), start=1):
        _note_hits(hits, sample, logits)
        if step % _REPORT_EVERY == 0 or step == phase.steps:
            report(f"{step}/{phase.steps} {time.monotonic() - began:.0f}s loss {loss:.3f} {_means(hits)}")
            hits.clear()
        if phase.snapshot_every and step % phase.snapshot_every == 0:
            save_base(model, place)


def _keep(model: LlamaForCausalLM, place: Path, made_by: str) -> None:
    """Save a finished phase; the stamp comes last, so that a half-written one doesn't count."""
    save_base(model, place)
    (place / _STAMP).write_text(made_by, encoding="utf-8")


def _load(place: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(place, dtype=torch.float32)


def _steps(
    model: LlamaForCausalLM, source: TextSource, phase: Phase, batch: int, rate: float
) -> Iterator[tuple[TextBatch, Tensor, float]]:
    """Train step by step; yield each batch with its logits (N, vocabulary) and its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, phase.steps))
    for step in range(1, phase.steps + 1):
        is_plain = step <= phase.plain_share * phase.steps or step % 3 == 0
        sample = source.batch(3 * batch // 2 if is_plain else batch, plain=is_plain)
        logits, targets = predict(model, sample, noise=_MAX_NOISE, accent_share=phase.accent_share)
        loss = functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield sample, logits.detach(), loss.item()


def predict(
    model: LlamaForCausalLM, sample: TextBatch, *, noise: float = 0.0, accent_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Logits (N, vocabulary) and targets (N,) at the supervised positions, row by row."""
    embeds = model.model.embed_tokens(sample.ids)  # (B, L, D)
    accents = random_accents(model.model.embed_tokens.weight, len(sample.ids), accent_share)
    cells = soft_cells(model.model.embed_tokens.weight, sample.cell_words, accents)  # (B, G, D)
    if noise:
        cells = cells + noise * torch.rand(len(cells), 1, 1) * torch.randn_like(cells)
    first, last = sample.first_cell, sample.first_cell + cells.shape[1]
    embeds = torch.cat([embeds[:, :first], cells, embeds[:, last:]], dim=1)  # (B, L, D)
    hidden = model.model(
        inputs_embeds=embeds,
        attention_mask=attention_mask(sample.blocks),
        position_ids=sample.positions,
        use_cache=False,
    ).last_hidden_state
    is_supervised = sample.targets >= 0
    return model.lm_head(hidden[is_supervised]), sample.targets[is_supervised]


def soft_cells(words: Tensor, cell_words: Tensor, accents: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Sum the embeddings of each cell's words: (B, G, 4) ids to (B, G, D).

    With accents (how much of a word is kept (B, 1, 1, 1), and what is added to each word (B, vocabulary, D))
    the words of a board sound strange, each in the same way wherever it stands.
    """
    has_word = (cell_words >= 0).unsqueeze(-1)  # (B, G, 4, 1)
    ids = cell_words.clamp(min=0)
    spoken = words[ids]  # (B, G, 4, D)
    if accents is not None:
        kept, added = accents
        boards = torch.arange(len(ids))[:, None, None]
        spoken = kept * spoken + added[boards, ids]
    return (spoken * has_word).sum(dim=2)


def random_accents(words: Tensor, num_boards: int, share: float) -> tuple[Tensor, Tensor] | None:
    """Draw accents for `soft_cells` on a share of the boards."""
    if share == 0:
        return None
    strength = torch.rand(num_boards, 1, 1) * (torch.rand(num_boards, 1, 1) < share)
    added = strength * torch.randn(num_boards, *words.shape) * words.shape[1] ** -0.5
    return (1 - 0.75 * strength)[..., None], added


def measure(model: LlamaForCausalLM, source: TextSource, num_batches: int = 12) -> dict[str, float]:
    """Accuracy of the first answer token on fresh boards without noise, by kind of question."""
    hits: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        for _ in range(num_batches):
            sample = source.batch(16)
            _note_hits(hits, sample, predict(model, sample)[0])
    return {kind: sum(values) / len(values) for kind, values in sorted(hits.items())}


def save_base(model: LlamaForCausalLM, folder: Path) -> None:
    """Save in half precision, in the layout of lmsys/vicuna-*."""
    clone = LlamaForCausalLM(model.config)
    clone.load_state_dict(model.state_dict())
    clone.half().save_pretrained(folder)


def _config(vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=_WIDTH,
        intermediate_size=3 * _WIDTH,
        num_hidden_layers=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )


def _warm_cosine(step: int, steps: int, warm: int = 100) -> float:
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))) + 0.01)


def _note_hits(hits: dict[str, list[float]], sample: TextBatch, logits: Tensor) -> None:
    """Add 1.0 for each first answer token that is right, 0.0 for each that is wrong."""
    is_supervised = sample.targets >= 0
    right = torch.zeros(sample.targets.shape)
    right[is_supervised] = (logits.argmax(-1) == sample.targets[is_supervised]).float()
    for row, position, kind in sample.answers:
        if kind not in ("caption", "facts"):
            hits[kind].append(right[row, position].item())
        else:
            span = slice(position, position + 64)
            hits[kind].append((right[row, span].sum() / is_supervised[row, span].sum()).item())


def _means(hits: dict[str, list[float]]) -> str:
    return " ".join(f"{kind} {sum(values) / len(values):.2f}" for kind, values in sorted(hits.items()))
