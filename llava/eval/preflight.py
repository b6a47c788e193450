"""Everything that can be wrong before a model is loaded, checked before it is loaded."""

from collections.abc import Sequence
from pathlib import Path

from llava.conversation import conv_templates
from llava.eval.answers import AnswerFiles
from llava.eval.arguments import EvalArguments, ModelArguments
from llava.eval.benchmark import Benchmark, Question
from llava.eval.calibration_questions import image_is_missing, questions_digest
from llava.eval.ranks import Ranks
from llava.eval.runner import Plan
from llava.eval.score import find_benchmark
from llava.model.assemble import source_config
from llava.model.budgets import Budgets, shift_for
from llava.model.files import ADAPTER_FILE, PROJECTOR_FILE, find_source
from llava.model.identity import WEIGHTS, checkpoint_digest
from llava.model.reduction import reduction_at_inference


def plan_run(arguments: EvalArguments, ranks: Ranks) -> list[Plan]:
    """Check the command line against the files and return one plan per benchmark.

    Raises:
        ValueError: unknown benchmark, template or reduction; a budget that isn't calibrated; no checkpoint,
            question file or image; a folder that can't be written or holds another run's answers.
    """
    if arguments.conv_mode != "auto" and arguments.conv_mode not in conv_templates:
        raise ValueError(f"no template {arguments.conv_mode!r}; there are {', '.join(conv_templates)}")
    identity: dict[str, str | float] = {
        name: checkpoint_hash(path, flag)
        for name, flag, path in (
            ("checkpoint", "--model_path", arguments.model_path),
            ("base", "--model_base", arguments.model_base),
        )
        if path is not None
    }
    require_weights(arguments)
    shift = _require_reduction(arguments)
    if shift is not None:
        identity["router_shift"] = shift
    benchmarks = [find_benchmark(name) for name in arguments.benchmarks]
    if arguments.split is not None:
        benchmarks = [benchmark.of_split(arguments.split) for benchmark in benchmarks]
    return [_plan(benchmark, arguments, ranks, identity) for benchmark in benchmarks]


def checkpoint_hash(model_path: str, flag: str = "--model_path") -> str:
    """Identify a checkpoint by its settings and a sample of its weights; a hub id by its name.

    Raises:
        ValueError: the path looks like a directory but isn't one, or has no config.json.
    """
    folder = Path(model_path)
    if not folder.is_dir():
        if folder.is_absolute() or model_path.startswith(".") or model_path.count("/") != 1:
            raise ValueError(f"{flag} {model_path}: no such directory, and not a hub id (owner/name)")
        return model_path
    if not (folder / "config.json").is_file():
        kind = "language model" if flag == "--model_base" else "LLaVA checkpoint"
        raise ValueError(f"{flag} {model_path}: no config.json; expected a {kind} directory")
    return checkpoint_digest(folder)


def require_weights(arguments: ModelArguments) -> None:
    """Refuse local directories without weights, and a stage-1 directory without its base model."""
    path, base = Path(arguments.model_path), arguments.model_base
    has_projector = (path / PROJECTOR_FILE).is_file()
    if base is not None:
        if Path(base).is_dir() and not _has_weights(Path(base)):
            raise ValueError(f"--model_base {base}: no weights; expected a language model directory")
        if path.is_dir() and not has_projector and not (path / ADAPTER_FILE).is_file():
            raise ValueError(
                f"--model_path {path}: no {PROJECTOR_FILE}, so nothing to add to --model_base {base}; "
                "leave --model_base out for a full checkpoint"
            )
    elif path.is_dir() and not _has_weights(path):
        advice = "add --model_base with the language model it was trained on (BASE of scripts/pretrain.sh)"
        raise ValueError(
            f"--model_path {path}: a projector only (stage 1); {advice}"
            if has_projector
            else f"--model_path {path}: no weights (*.safetensors, *.bin); expected a LLaVA checkpoint"
        )


def _has_weights(folder: Path) -> bool:
    found = {file.name for pattern in WEIGHTS for file in folder.glob(pattern)}
    return bool(found - {PROJECTOR_FILE, "training_args.bin"})


def _require_reduction(arguments: EvalArguments) -> float | None:
    """Refuse a --reduction or --budget that a local checkpoint can't follow; with a hub id, loading does.

    Returns:
        the shift of its router that the budget stands for, where there is one.
    """
    folder = Path(arguments.model_path)
    if not folder.is_dir():
        return None
    config = source_config(find_source(arguments.model_path, arguments.model_base))
    reduction = reduction_at_inference(config.reduction, arguments.reduction, config.num_hidden_layers)
    if arguments.budget is None:
        return None
    return shift_for(Budgets.read(folder), reduction, arguments.budget, arguments.counting)


def _plan(
    benchmark: Benchmark, arguments: EvalArguments, ranks: Ranks, identity: dict[str, str | float]
) -> Plan:
    data_root = Path(arguments.data_root)
    questions = benchmark.questions(data_root)[: arguments.max_samples]
    _require_images(benchmark, questions)
    generation = arguments.generation(benchmark.max_new_tokens)
    files = AnswerFiles(Path(arguments.output_dir) / benchmark.name, ranks.rank)
    files.claim(
        {
            "benchmark": benchmark.name,
            "model_path": arguments.model_path,
            "model_base": arguments.model_base,
            **identity,
            "reduction": arguments.reduction,
            "conv_mode": arguments.conv_mode,
            "dtype": arguments.dtype,
            "generation": generation,
            "num_questions": len(questions),
            "questions": questions_digest(questions),
        }
    )
    return Plan(
        benchmark=benchmark,
        questions=questions,
        files=files,
        data_root=data_root,
        generation=generation,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
    )


def _require_images(benchmark: Benchmark, questions: Sequence[Question]) -> None:
    absent = [question for question in questions if image_is_missing(question)]
    if absent:
        raise ValueError(
            f"{benchmark.name}: {len(absent)} of {len(questions)} images are missing, for example "
            f"{absent[0].image} (question {absent[0].id}); see playground/README.md for the layout"
        )
