"""Answer one benchmark's questions on one rank: batch, generate, write, resume. No benchmark by name."""

import secrets
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from llava.eval.answers import AnswerFiles
from llava.eval.benchmark import Benchmark, Question, place_rows
from llava.eval.inputs import (
    Batch,
    PromptStyle,
    QuestionItems,
    batches_of_like_length,
    load_batches,
    tokenize_prompts,
)
from llava.eval.ranks import Ranks

_ID_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 22
_DIGITS_KEPT = 5


@dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded checkpoint and how it is run."""

    model: Any
    """LlavaLlamaForCausalLM, in eval mode, on `device`."""
    tokenizer: Any
    image_processor: Any
    style: PromptStyle
    flops_ratios: Callable[[Any, Any], dict[str, float]]
    """(report of one sample, model config) -> FLOPs relative to dense, in both countings."""
    model_id: str
    device: torch.device
    dtype: torch.dtype
    reduction: dict[str, Any] | None = None
    label_mark: str = ""
    """What this session adds to every protocol label."""


class Plan(NamedTuple):
    """One benchmark of a run: what to ask, how, and where the answers go."""

    benchmark: Benchmark
    questions: list[Question]
    files: AnswerFiles
    data_root: Path
    generation: dict[str, Any]
    batch_size: int
    num_workers: int

    def open_positions(self, ranks: Ranks) -> list[int]:
        """Return this rank's questions that no file answers yet."""
        rows = self.files.read()
        answered = set(place_rows(self.benchmark, self.questions, rows))
        return [position for position in ranks.shard(range(len(self.questions))) if position not in answered]


def answer_all(plan: Plan, session: Session, ranks: Ranks) -> None:
    """Ask what is still open on this rank and append the answers, batch by batch, to its part file."""
    plan.files.repair()
    prompts = tokenize_prompts(plan.questions, session.style, session.tokenizer)
    batches = batches_of_like_length(
        [len(ids) for ids in prompts], plan.open_positions(ranks), plan.batch_size
    )
    items = QuestionItems(
        questions=plan.questions,
        prompts=prompts,
        image_processor=session.image_processor,
        model_config=session.model.config,
    )
    pad_token_id = session.tokenizer.pad_token_id
    loaded = load_batches(items, batches, pad_token_id=pad_token_id, num_workers=plan.num_workers)
    with tqdm(
        total=sum(map(len, batches)), desc=plan.benchmark.name, unit="question", disable=ranks.rank != 0
    ) as progress:
        for number, batch in enumerate(loaded):
            answers = _answer(plan, session, batch)
            plan.files.append(_rows(plan, session, batch, answers, is_warm_up=number == 0))
            progress.update(len(batch.positions))


class _Answers(NamedTuple):
    """What the model said to one batch."""

    texts: list[str]
    reports: Sequence[Any]
    seconds: float
    """Wall clock of the whole batch."""


@torch.inference_mode()
def _answer(plan: Plan, session: Session, batch: Batch) -> _Answers:
    """Generate for one batch; the clock covers vision tower, prefill and decoding, not data loading."""
    images = images_to_device(batch.images, session)
    input_ids, attention_mask = batch.input_ids.to(session.device), batch.attention_mask.to(session.device)
    torch.manual_seed(batch.positions[0])  # random routes and sampled answers repeat from run to run
    try:
        started = _clock(session.device)
        new_ids, reports = session.model.generate_with_report(
            input_ids,
            images=images,
            image_sizes=batch.image_sizes,
            attention_mask=attention_mask,
            **plan.generation,
        )
        seconds = _clock(session.device) - started
    except Exception as error:
        ids = ", ".join(str(plan.questions[position].id) for position in batch.positions)
        error.add_note(f"while answering {plan.benchmark.name}, question {ids}")
        raise
    texts = session.tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    return _Answers([text.strip() for text in texts], reports, seconds)


def _rows(
    plan: Plan, session: Session, batch: Batch, answers: _Answers, *, is_warm_up: bool
) -> list[dict[str, Any]]:
    """Write each answer as a line: upstream's keys in upstream's order, then ours."""
    seconds = None if is_warm_up else round(answers.seconds / len(batch.positions), 6)
    rows = []
    for position, text, report in zip(batch.positions, answers.texts, answers.reports, strict=True):
        question = plan.questions[position]
        rows.append(
            {
                "question_id": question.id,
                "prompt": question.text,
                "text": text,
                "answer_id": "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)),
                "model_id": session.model_id,
                "metadata": {},
                **question.extra,
                "gold": plan.benchmark.gold_text(question),
                "score": plan.benchmark.correctness(question, text),
                "image": str(question.image.relative_to(plan.data_root)),
                "route": list(report.route),
                "probabilities": [[round(p, _DIGITS_KEPT) for p in stage] for stage in report.probabilities],
                "tokens_per_layer": list(report.tokens_per_layer),
                "visual_tokens_per_layer": list(report.visual_tokens_per_layer),
                "flops_ratio": session.flops_ratios(report, session.model.config),
                "seconds": seconds,
                "batch_size": plan.batch_size,
            }
        )
    return rows


def images_to_device(images: torch.Tensor | list[torch.Tensor], session: Session) -> Any:
    """Move pixels, stacked or one by one, to the session's device and dtype."""
    if isinstance(images, list):
        return [image.to(session.device, session.dtype) for image in images]
    return images.to(session.device, session.dtype)


def _clock(device: torch.device) -> float:
    """Return the time once the device has finished what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
