"""Answer one benchmark's questions on one rank: batch, generate, write, resume. No benchmark by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from llava.eval.answers import AnswerFiles
from llava.eval.benchmark import Benchmark, Question, place_rows
from llava.eval.inputs import Batch, PromptStyle, QuestionItems, load_batches, plan_batches, tokenize_prompts
from llava.eval.lines import answer_line
from llava.eval.phases import PhaseClock, Seconds
from llava.eval.ranks import Ranks

_DIGITS_KEPT = 5
_MICROSECONDS = 6


@dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded checkpoint and how it is run."""

    model: Any
    """LlavaLlamaForCausalLM, in eval mode, on `device`."""
    tokenizer: Any
    image_processor: Any
    style: PromptStyle
    flops: Callable[[Any, Any], dict[str, tuple[int, int]]]
    """(report of a sample, model config) -> per counting, multiply-adds of its prefill and of a dense one."""
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
    lengths = [len(ids) for ids in prompts]
    batches = plan_batches(plan.questions, lengths, plan.open_positions(ranks), plan.batch_size)
    asking = ask(
        plan.questions,
        prompts,
        batches,
        session,
        generation=plan.generation,
        num_workers=plan.num_workers,
        show_progress=ranks.rank == 0,
        name=plan.benchmark.name,
    )
    for number, replies in enumerate(asking):
        plan.files.append([_row(plan, session, reply, is_warm_up=number == 0) for reply in replies])


class Reply(NamedTuple):
    """What the model said to one question, and what that took."""

    position: int
    text: str
    report: Any
    """SampleReport of the prefill."""
    prompt_tokens: int
    """Text tokens of the prompt: those of the image are counted in the report."""
    answer_tokens: int
    """Tokens of the answer, the end token included."""
    seconds: Seconds
    """The batch's time divided by its questions."""


def ask(
    questions: Sequence[Question],
    prompts: Sequence[Tensor],
    batches: list[list[int]],
    session: Session,
    *,
    generation: Mapping[str, Any],
    num_workers: int,
    show_progress: bool,
    name: str,
) -> Iterator[list[Reply]]:
    """Answer batches of positions in `questions`, of which `prompts` are the ids (L,); yields every batch.

    Raises:
        ValueError: an image or a question that can't be used, or not enough memory; it names the question.
    """
    items = QuestionItems(
        questions=questions,
        prompts=prompts,
        image_processor=session.image_processor,
        model_config=session.model.config,
    )
    loaded = load_batches(
        items, batches, pad_token_id=session.tokenizer.pad_token_id, num_workers=num_workers
    )
    total = sum(map(len, batches))
    with tqdm(total=total, desc=name, unit="question", disable=not show_progress) as progress:
        for batch in loaded:
            try:
                replies = _reply(batch, session, generation)
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"{name}, question {_ids(questions, batch)}: out of memory ({error}); take a smaller "
                    "--batch_size; answers so far are kept"
                ) from error
            except Exception as error:
                error.add_note(f"while answering {name}, question {_ids(questions, batch)}")
                raise
            yield replies
            progress.update(len(replies))


@torch.inference_mode()
def _reply(batch: Batch, session: Session, generation: Mapping[str, Any]) -> list[Reply]:
    """Generate for one batch; the clock covers vision tower, prefill and decoding, not data loading."""
    images = None if batch.images is None else images_to_device(batch.images, session)
    input_ids, attention_mask = batch.input_ids.to(session.device), batch.attention_mask.to(session.device)
    torch.manual_seed(batch.positions[0])  # random routes and sampled answers repeat from run to run
    with PhaseClock(session.model, session.device) as clock:
        new_ids, reports = session.model.generate_with_report(
            input_ids,
            images=images,
            image_sizes=batch.image_sizes,
            attention_mask=attention_mask,
            **_for_batch(generation, len(batch.positions)),
        )
    size = len(batch.positions)
    seconds = Seconds(*(phase / size for phase in clock.seconds()))
    texts = session.tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    ends = end_tokens(session.model)
    answer_tokens = [answer_length(ids, ends) for ids in new_ids.tolist()]
    prompt_tokens = ((batch.input_ids >= 0) & batch.attention_mask).sum(1).tolist()
    return [
        Reply(position, text.strip(), report, prompt, answer, seconds)
        for position, text, report, prompt, answer in zip(
            batch.positions, texts, reports, prompt_tokens, answer_tokens, strict=True
        )
    ]


def _for_batch(generation: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the keywords for `generate` of a batch: a forced `route` is forced on every prompt."""
    keywords = dict(generation)
    route = keywords.pop("route", None)
    return keywords if route is None else {**keywords, "routes": [route] * size}


def end_tokens(model: Any) -> frozenset[int]:
    """Return the ids at which a model's answers end."""
    ends = model.generation_config.eos_token_id
    return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)


def answer_length(ids: Sequence[int], ends: frozenset[int]) -> int:
    """Count generated ids up to and with the first end token: behind it a batch holds padding."""
    return next((number for number, token in enumerate(ids, start=1) if token in ends), len(ids))


def _row(plan: Plan, session: Session, reply: Reply, *, is_warm_up: bool) -> dict[str, Any]:
    """Write an answer as a line: upstream's keys in upstream's order, then ours."""
    question, report = plan.questions[reply.position], reply.report
    flops = session.flops(report, session.model.config)
    image = question.image.relative_to(plan.data_root) if isinstance(question.image, Path) else None
    phases = {name: round(seconds, _MICROSECONDS) for name, seconds in reply.seconds._asdict().items()}
    return {
        **answer_line(question, reply.text, session.model_id),
        "gold": plan.benchmark.gold_text(question),
        "score": plan.benchmark.correctness(question, reply.text),
        "image": None if image is None else str(image),
        "category": question.category,
        "route": list(report.route),
        "probabilities": [[round(p, _DIGITS_KEPT) for p in stage] for stage in report.probabilities],
        "tokens_per_layer": list(report.tokens_per_layer),
        "visual_tokens_per_layer": list(report.visual_tokens_per_layer),
        "visual_grids": [list(grid) for grid in report.visual_grids],
        "dense_visual_tokens": report.dense_visual_tokens,
        "prompt_tokens": reply.prompt_tokens,
        "answer_tokens": reply.answer_tokens,
        "flops": {counting: cost for counting, (cost, _) in flops.items()},
        "flops_ratio": {
            counting: cost / dense if dense else 1.0 for counting, (cost, dense) in flops.items()
        },
        "seconds": None if is_warm_up else round(reply.seconds.total, _MICROSECONDS),
        "seconds_by_phase": None if is_warm_up else phases,
        "batch_size": plan.batch_size,
    }


def images_to_device(images: Tensor | list[Tensor], session: Session) -> Any:
    """Move pixels, stacked or one by one, to the session's device and dtype."""
    if isinstance(images, list):
        return [image.to(session.device, session.dtype) for image in images]
    return images.to(session.device, session.dtype)


def _ids(questions: Sequence[Question], batch: Batch) -> str:
    return ", ".join(str(questions[position].id) for position in batch.positions)
