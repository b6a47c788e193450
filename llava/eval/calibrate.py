"""Measure what a trained router costs at every shift of its choices, so that `budget=` can ask for a share.

python -m llava.eval.calibrate --model_path CHECKPOINT --benchmarks gqa pope
python -m llava.eval.calibrate --model_path CHECKPOINT --data train.json --image_folder playground/data

Nothing is generated and nothing retrained: every question is prefilled once per route that it takes as the
shift grows, and the means go to budgets.json beside the checkpoint (docs/budgets.md). Shapes: B questions.
"""

import platform
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm
from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava import __version__
from llava.eval.arguments import ModelArguments, flag
from llava.eval.benchmark import Question
from llava.eval.calibration_questions import collect_questions, questions_digest
from llava.eval.inputs import Batch, QuestionItems, batches_of_like_length, load_batches, tokenize_prompts
from llava.eval.preflight import checkpoint_hash, require_weights
from llava.eval.ranks import Ranks
from llava.eval.runner import Session, images_to_device
from llava.eval.session import load_session
from llava.model.budgets import COUNTINGS, FILE, Budgets
from llava.model.reduction import LOWEST_SHIFT, BudgetTable, DpnConfig, Steps, from_dict, next_shifts
from llava.model.report import flops_ratios, report

HELD_OUT = 4
"""Every fourth question is kept out of the table, to see how well it predicts others."""
_SHOWN = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35)


@dataclass(kw_only=True)
class CalibrateArguments(ModelArguments):
    """Which checkpoint is measured, and on what: benchmarks, or training data."""

    benchmarks: list[str] = field(
        default_factory=list, metadata={"help": "names of benchmarks whose questions are prefilled"}
    )
    data: str | None = flag(None, "LLaVA's training JSON, of which first questions are prefilled instead")
    image_folder: str | None = flag(None, "folder of its images")
    max_samples: int = flag(512, "questions drawn from all of them")
    seed: int = flag(0, "draws the questions")

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        super().__post_init__()
        if bool(self.benchmarks) == (self.data is not None):
            raise ValueError("give either --benchmarks or --data with --image_folder")
        if (self.data is None) != (self.image_folder is None):
            raise ValueError("--data and --image_folder belong together")
        if self.max_samples < HELD_OUT:
            raise ValueError(f"--max_samples must be {HELD_OUT} or more, got {self.max_samples}")


def main(words: Sequence[str] | None = None) -> None:
    """Calibrate; what is wrong with flags, files or checkpoints ends in one line, not in a traceback."""
    parser = HfArgumentParser(
        DataClassType(CalibrateArguments), prog="python -m llava.eval.calibrate", description=__doc__
    )
    try:
        arguments, *_ = parser.parse_args_into_dataclasses(list(words) if words is not None else None)
        for line in calibrate(arguments):
            sys.stdout.write(line + "\n")
    except ValueError as error:
        sys.exit("; ".join([f"llava.eval.calibrate: {error}", *getattr(error, "__notes__", [])]))


def calibrate(arguments: CalibrateArguments) -> list[str]:
    """Check everything, load the model, measure, write budgets.json; returns the lines to show."""
    folder = Path(arguments.model_path)
    if not folder.is_dir():
        raise ValueError(
            f"--model_path {folder}: {FILE} is written beside a checkpoint; give a local directory"
        )
    digest = checkpoint_hash(arguments.model_path)
    require_weights(arguments)
    questions, skipped = collect_questions(arguments)
    random.Random(arguments.seed).shuffle(questions)
    questions = questions[: arguments.max_samples]
    if len(questions) < HELD_OUT:
        raise ValueError(f"{len(questions)} questions with an image are too few; expected {HELD_OUT} or more")
    session = load_session(arguments, Ranks())
    _require_router(session, arguments.model_path)
    samples = measure(questions, session, arguments)
    kept = [sample for number, sample in enumerate(samples) if number % HELD_OUT]
    table = BudgetTable.of(kept, tuple(COUNTINGS))
    checks = held_out_checks(table, samples[::HELD_OUT])
    assert session.reduction is not None
    budgets = Budgets(
        table=table,
        reduction=session.reduction,
        checkpoint=digest,
        provenance={
            "benchmarks": arguments.benchmarks,
            "data": arguments.data,
            "questions": questions_digest(questions),
            "num_questions": len(kept),
            "num_held_out": len(samples) - len(kept),
            "num_skipped": skipped,
            "routes_per_question": float(np.mean([len(sample.shifts) for sample in samples])),
            "seed": arguments.seed,
            "conv_mode": arguments.conv_mode,
            "device": session.device.type,
            "dtype": str(session.dtype).removeprefix("torch."),
            "held_out": checks,
            "versions": {
                "llava": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
        },
    )
    try:
        path = budgets.write(folder)
    except OSError as error:
        raise ValueError(f"can't write {FILE} to {folder} ({error.strerror})") from error
    return [*_shown(table, checks), f"wrote {path}"]


def measure(questions: Sequence[Question], session: Session, arguments: ModelArguments) -> list[Steps]:
    """Walk every question, in their order, through all routes that it takes as the shift grows."""
    prompts = tokenize_prompts(questions, session.style, session.tokenizer)
    positions = list(range(len(questions)))
    batches = batches_of_like_length([len(ids) for ids in prompts], positions, arguments.batch_size)
    items = QuestionItems(
        questions=questions,
        prompts=prompts,
        image_processor=session.image_processor,
        model_config=session.model.config,
    )
    loaded = load_batches(
        items, batches, pad_token_id=session.tokenizer.pad_token_id, num_workers=arguments.num_workers
    )
    found: dict[int, Steps] = {}
    with tqdm(total=len(questions), desc="calibrate", unit="question") as progress:
        for batch in loaded:
            found.update(zip(batch.positions, walk(batch, session), strict=True))
            progress.update(len(batch.positions))
    return [found[position] for position in positions]


@torch.inference_mode()
def walk(batch: Batch, session: Session) -> list[Steps]:
    """Prefill a batch once per route that any of its B questions takes; images are encoded once.

    Every question has a shift of its own, and stays where it is once it has no other route left.
    """
    model, size = session.model, len(batch.positions)
    assert batch.images is not None  # collect_questions leaves out questions without an image
    images = images_to_device(batch.images, session)
    ids, mask = batch.input_ids.to(session.device), batch.attention_mask.to(session.device)
    spliced = model.splice(ids, mask, None, images, batch.image_sizes, "left")
    temperature = model.model.reducer.config.temperature
    shift = np.full(size, LOWEST_SHIFT)
    steps: list[list[tuple[float, list[float]]]] = [[] for _ in range(size)]
    is_open = np.ones(size, bool)
    while is_open.any():
        routing = model.model(
            inputs_embeds=spliced.inputs_embeds,
            attention_mask=spliced.attention_mask,
            mm_token_type_ids=spliced.mm_token_type_ids,
            visual_grids=spliced.visual_grids,
            use_cache=False,
            router_shift=torch.from_numpy(shift).float(),
        ).routing
        reports = report(
            routing,
            tokens=spliced.lengths,
            visual_tokens=spliced.visual_counts,
            spared=spliced.spared,
            num_layers=model.config.num_hidden_layers,
        )
        for row in np.flatnonzero(is_open):
            ratios = flops_ratios(reports[row], model.config)
            steps[row].append((float(shift[row]), [ratios[name] for name in COUNTINGS.values()]))
        following = next_shifts(routing, shift, temperature)
        is_open &= np.isfinite(following)
        shift = np.where(is_open, following, shift)
    return [
        Steps(np.array([at for at, _ in taken]), np.array([shares for _, shares in taken]).T)  # (C, K)
        for taken in steps
    ]


def held_out_checks(table: BudgetTable, samples: Sequence[Steps]) -> list[dict[str, Any]]:
    """Say for the reachable budgets of both countings what questions outside the table come to."""
    checks = []
    for row, counting in enumerate(COUNTINGS):
        for budget in _SHOWN:
            try:
                shift = table.shift_for(budget, counting)
            except ValueError:
                continue  # out of reach: nothing to check
            realised = float(np.mean([sample.at(shift)[row] for sample in samples]))
            checks.append({"budget": budget, "counting": counting, "shift": shift, "realised": realised})
    return checks


def _require_router(session: Session, model_path: str) -> None:
    """Refuse a checkpoint whose routes no shift can move."""
    if session.reduction is None:
        raise ValueError(
            f"--model_path {model_path}: a plain LLaVA without a reduction; nothing to calibrate"
        )
    config = from_dict(session.reduction)
    if not isinstance(config, DpnConfig):
        raise ValueError(
            f"--model_path {model_path}: --reduction {config.method} has no routers; nothing to calibrate"
        )
    if config.eval_choice != "argmax":
        raise ValueError(
            f"--model_path {model_path}: its routes are {config.eval_choice} (eval_choice), no router moves "
            f"them"
        )


def _shown(table: BudgetTable, checks: Sequence[dict[str, Any]]) -> list[str]:
    """Give the lines that tell what was found."""
    reach = [
        f"{counting}: mean share of the dense FLOPs from {shares[-1]:.3f} to {shares[0]:.3f}, "
        f"largest gap {max(-np.diff(shares)):.3f}"
        for counting, shares in table.shares.items()
    ]
    return [
        *reach,
        *(
            f"budget {check['budget']:.2f} ({check['counting']}): shift {check['shift']:.4f}, "
            f"held-out questions {check['realised']:.3f}"
            for check in checks
        ),
    ]


if __name__ == "__main__":
    main()
