"""Compare ways of choosing routes on the small world, several seeds each.

python -m llava.toy.study --methods dense static-2x2 policy@1 value --seeds 5 --output results/study
python -m llava.toy.study --methods "mine=preset=policy mu=0.3 credit=later" ...     a method of one's own

Every run starts from one world, one base and one projector of stage 1; its seed changes the order of the
data, the routers' initial weights and the routes drawn while training. Finished runs are kept, so a second
call goes on; dpn.analysis.study then writes table, plot and JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("gqa", "pope", "textvqa")
_STATIC = "objective=hinge train_choice=static eval_choice=static"
_MU_AT_INFERENCE = ("0.02", "0.05", "0.1", "0.2", "0.5", "1", "2")

METHODS = {
    "dense": "",
    "static-2x2": f"{_STATIC} route=2x2,2x2,2x2",
    "static-1x2": f"{_STATIC} route=1x2,1x2,1x2",
    "static-late": f"{_STATIC} route=2x2,2x2,2x2 layers=4,5,6",
    "random": "objective=hinge train_choice=random eval_choice=random",
    "paper": "preset=paper min_tokens=2 skip_below=2",
    "paper-weight1": "preset=paper min_tokens=2 skip_below=2 loss_weight=1",
    "straight-through": "objective=hinge gate=straight_through loss_weight=0.01",
    "gumbel": "objective=hinge gate=straight_through train_choice=gumbel loss_weight=0.01",
    "policy@0.5": "mu=0.5",
    "policy@1": "mu=1",
    "policy@2": "mu=2",
    "policy-budget": "budget=0.4",
    "policy-warm": "mu=1 cost_warmup_steps=100",
    "policy-later": "mu=1 credit=later",
    "policy-entropy": "mu=1 entropy_weight=0.02 exploration_steps=200",
    "policy-uniform": "mu=1 uniform_share=0.2 exploration_steps=200",
    "policy-token": "mu=1 router_source=token",
    "policy-both": "mu=1 router_source=both",
    "value": "preset=value",
    "value-explore": "preset=value uniform_share=0.5 exploration_steps=300",
    "value-both": "preset=value router_source=both",
}
"""FIELD=VALUE words of `--reduction dpn` (the limits of `paper` are scaled to 64 visual tokens); "" is no
reduction. What stands behind @ is the value that tells the points of one curve apart."""
DEFAULT_METHODS = ("dense", "static-2x2", "static-1x2", "static-late", "random", "paper", "policy@1", "value")
_LAYERS = "layers=2,4,6"


class Point(NamedTuple):
    """One way of running a trained checkpoint: a point of the plot."""

    name: str
    words: tuple[str, ...]
    """Of `--reduction` at inference; none: as it was trained."""


class Run(NamedTuple):
    """One training and what is evaluated of it."""

    method: str
    words: tuple[str, ...]
    """Of `--reduction` in training."""
    seed: int
    folder: Path


class Settings(NamedTuple):
    """What all runs of a study share."""

    world: Path
    projector: Path
    steps: int
    max_samples: int | None
    threads: int


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, train and evaluate what is missing, then write table and plot."""
    arguments = _parser().parse_args(words)
    output = arguments.output.resolve()
    world = arguments.world.resolve()
    projector = output / "pretrain" / "mm_projector.bin"
    settings = Settings(
        world,
        arguments.projector.resolve() if arguments.projector else projector,
        arguments.steps,
        arguments.max_samples,
        arguments.threads,
    )
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    try:
        runs = plan(arguments.methods, seeds, output)
        _prepare(settings, make_projector=arguments.projector is None)
        failed = _run_all(runs, settings, jobs=arguments.jobs)
        _call([sys.executable, "-m", "dpn.analysis.study", str(output)], {}, None)
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"llava.toy.study: {error}")
    if failed:
        sys.exit(f"llava.toy.study: {failed} of {len(runs)} runs failed; a second call tries again")


def plan(methods: Sequence[str], seeds: Sequence[int], output: Path) -> list[Run]:
    """List the runs, one seed after the other, so that an unfinished study compares like with like.

    Raises:
        ValueError: a method that is neither known nor given as NAME=WORDS, or one named twice.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for method in methods:
        name, equals, own = method.partition("=")
        if not equals and name not in METHODS:
            raise ValueError(f"unknown method {name!r}; known: {', '.join(METHODS)}, or NAME=FIELD=VALUE ...")
        if name in chosen or Path(name).name != name:
            raise ValueError(f"every method needs a name of its own that can be a folder, got {name!r}")
        chosen[name] = reduction_words(own if equals else METHODS[name])
    folder = output / "runs"
    return [
        Run(name, words, seed, folder / name / f"seed{seed}")
        for seed in seeds
        for name, words in chosen.items()
    ]


def reduction_words(fields: str) -> tuple[str, ...]:
    """Complete FIELD=VALUE words to those of `--reduction`: ("dpn", "layers=2,4,6", ...), () for dense."""
    given = fields.split()
    if not given:
        return ()
    has_layers = any(word.startswith("layers=") for word in given)
    return ("dpn", *(() if has_layers else (_LAYERS,)), *given)


def points(run: Run) -> list[Point]:
    """List what is evaluated of a run; a router that predicts values serves several cost weights."""
    is_value = "preset=value" in run.words or "objective=value" in run.words
    if not is_value:
        return [Point(run.method, ())]
    return [Point(f"{run.method}@{mu}", ("dpn", f"mu={mu}")) for mu in _MU_AT_INFERENCE]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.toy.study", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--methods", nargs="+", default=DEFAULT_METHODS, help=f"of {', '.join(METHODS)}; or NAME=WORDS"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first_seed", "--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="training steps of stage 2")
    parser.add_argument("--output", type=Path, default=Path("results/study"))
    parser.add_argument("--world", type=Path, default=Path("playground/toy"), help="written if it is missing")
    parser.add_argument("--projector", type=Path, help="of stage 1 (default: trained once into the output)")
    parser.add_argument(
        "--max_samples", "--max-samples", type=int, help="questions per benchmark; unset: all"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run; results depend on it")
    return parser


def _prepare(settings: Settings, *, make_projector: bool) -> None:
    """Write the world and train the projector, unless they are there."""
    if not settings.world.is_dir():
        _call([sys.executable, "-m", "llava.toy", "--output", str(settings.world)], {}, None)
    if not settings.projector.is_file():
        if not make_projector:
            raise ValueError(f"{settings.projector}: no such projector; leave --projector out to train one")
        folder = settings.projector.parent
        _call(["bash", "scripts/pretrain.sh"], {**_environment(settings), "OUTPUT": str(folder)}, None)


def _run_all(runs: Sequence[Run], settings: Settings, *, jobs: int) -> int:
    """Carry the runs out; returns how many failed."""
    began = time.monotonic()
    done = 0

    def report(run: Run) -> bool:
        nonlocal done
        problem = _carry_out(run, settings)
        done += 1
        minutes = (time.monotonic() - began) / 60
        left = minutes / done * (len(runs) - done)
        state = problem or "done"
        line = f"[{done}/{len(runs)}] {run.method} seed {run.seed}: {state}; about {left:.0f} min left"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        return problem is None

    with ThreadPoolExecutor(jobs) as pool:
        return sum(not is_fine for is_fine in pool.map(report, runs))


def _carry_out(run: Run, settings: Settings) -> str | None:
    """Train and evaluate what is missing of one run; returns what went wrong."""
    run.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = run.folder / "checkpoint"
    environment = {**_environment(settings), "SEED": str(run.seed), "OUTPUT": str(checkpoint)}
    words = ["--reduction", *run.words] if run.words else []
    trained = {"words": run.words, "steps": settings.steps, "seed": run.seed}
    try:
        _once(
            run.folder / "train",
            trained,
            ["bash", "scripts/finetune.sh", *words],
            {**environment, "MAX_STEPS": str(settings.steps)},
        )
        for point in points(run):
            folder = run.folder / "points" / point.name
            words = ["--reduction", *point.words] if point.words else []
            _once(
                run.folder / f"eval-{point.name}",
                {**trained, "max_samples": settings.max_samples},
                ["bash", "scripts/eval/run.sh", *_evaluation(checkpoint, folder, settings), *words],
                environment,
            )
    except subprocess.CalledProcessError as error:
        return f"FAILED ({error.stderr})"
    except ValueError as error:
        return f"FAILED ({error})"
    return None


def _evaluation(checkpoint: Path, folder: Path, settings: Settings) -> list[str]:
    limit = [] if settings.max_samples is None else ["--max_samples", str(settings.max_samples)]
    paths = ["--model_path", str(checkpoint), "--data_root", str(settings.world / "eval")]
    shape = ["--batch_size", "32", "--num_workers", "0", "--max_new_tokens", "8"]
    return ["--benchmarks", *BENCHMARKS, *paths, "--output_dir", str(folder), *shape, *limit]


def _once(
    name: Path, what: Mapping[str, object], command: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run a command unless NAME.done says that it has been; its output goes to NAME.log.

    Raises:
        ValueError: it has been run with other settings.
    """
    done, stamp = name.with_name(f"{name.name}.done"), json.dumps(what, indent=1)
    if done.is_file():
        if done.read_text(encoding="utf-8") != stamp:
            raise ValueError(
                f"{done} says {done.read_text(encoding='utf-8')}, asked is {stamp}: other settings need "
                f"another method name or --output"
            )
        return
    _call(command, environment, name.with_name(f"{name.name}.log"))
    done.write_text(stamp, encoding="utf-8")


def _call(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> None:
    """Run a command in the repository, its output in a log file or on the terminal."""
    everything = {**os.environ, **environment}
    if log is None:
        subprocess.run(command, cwd=ROOT, env=everything, check=True)
        return
    with log.open("w", encoding="utf-8") as stream:
        code = subprocess.run(
            command, cwd=ROOT, env=everything, stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        raise subprocess.CalledProcessError(code, command, stderr=f"exit status {code}, see {log}")


def _environment(settings: Settings) -> dict[str, str]:
    """Return what scripts/presets/toy.env and torch read."""
    return {
        "PRESET": "toy",
        "TOY": str(settings.world),
        "PROJECTOR": str(settings.projector),
        "OMP_NUM_THREADS": str(settings.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


if __name__ == "__main__":
    main()
