"""Compare ways of choosing routes on the small world, several seeds each.

python -m llava.toy.study --methods dense static-2x2 policy value --seeds 5 --output results/study
python -m llava.toy.study --methods "mine=preset=policy mu=0.3 credit=later" ...     a method of one's own

Every run starts from one world, one base and one stage 1 (one for each type of projector); its seed changes
the order of the data, the routers' initial weights and the routes drawn while training. Finished runs are
kept, so a second call goes on; dpn.analysis.study then writes table, plot and JSON.
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

from llava.toy.methods import METHODS, Method, own_method

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("gqa", "pope", "textvqa")
FAILED_RUNS = 3
"""Exit status after runs that failed, the others being done and shown; 1 is for what stops all of them."""
DEFAULT_METHODS = (
    "dense",
    "static-2x2",
    "static-1x2",
    "static-late",
    "random",
    "paper",
    "policy",
    "value",
)


class Run(NamedTuple):
    """One training and what is evaluated of it."""

    name: str
    """Of the method."""
    method: Method
    seed: int
    folder: Path


class Settings(NamedTuple):
    """What all runs of a study share."""

    world: Path
    projectors: Path
    """Folder of stage 1, one folder in it per type of projector."""
    steps: int
    max_samples: int | None
    threads: int


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, train and evaluate what is missing, then write table and plot."""
    arguments = _parser().parse_args(words)
    output = arguments.output.resolve()
    world = arguments.world.resolve()
    settings = Settings(world, output / "pretrain", arguments.steps, arguments.max_samples, arguments.threads)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    try:
        runs = plan(arguments.methods, seeds, output)
        prepare(runs, settings, jobs=arguments.jobs)
        failed = run_all(runs, settings, jobs=arguments.jobs)
        _call([sys.executable, "-m", "dpn.analysis.study", str(output)], {}, None)
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"llava.toy.study: {getattr(error, 'stderr', None) or error}")
    if failed:
        sys.stderr.write(f"llava.toy.study: {failed} of {len(runs)} runs failed; a second call tries again\n")
        sys.exit(FAILED_RUNS)


def plan(methods: Sequence[str], seeds: Sequence[int], output: Path) -> list[Run]:
    """List the runs, one seed after the other, so that an unfinished study compares like with like.

    Raises:
        ValueError: a method that is neither known nor given as NAME=WORDS, or one named twice.
    """
    chosen: dict[str, Method] = {}
    for method in methods:
        name, equals, own = method.partition("=")
        if not equals and name not in METHODS:
            raise ValueError(f"unknown method {name!r}; known: {', '.join(METHODS)}, or NAME=FIELD=VALUE ...")
        if name in chosen or Path(name).name != name:
            raise ValueError(f"every method needs a name of its own that can be a folder, got {name!r}")
        chosen[name] = own_method(name, own) if equals else METHODS[name]
    folder = output / "runs"
    return [
        Run(name, method, seed, folder / name / f"seed{seed}")
        for seed in seeds
        for name, method in chosen.items()
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.toy.study", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--methods", nargs="+", default=DEFAULT_METHODS, help=f"of {', '.join(METHODS)}; or NAME=WORDS"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first_seed", "--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="training steps of stage 2")
    parser.add_argument("--output", type=Path, default=Path("results/study"))
    parser.add_argument("--world", type=Path, default=Path("playground/toy"), help="written if it is missing")
    parser.add_argument(
        "--max_samples", "--max-samples", type=int, help="questions per benchmark; unset: all"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run; results depend on it")
    return parser


def prepare(runs: Sequence[Run], settings: Settings, *, jobs: int) -> None:
    """Write the world and train every projector that unfinished runs start from, unless they are there.

    A projector that fails is said here and fails its runs; the others go on.

    Raises:
        subprocess.CalledProcessError: there is no world, and it can't be written.
    """
    if not settings.world.is_dir():
        _call([sys.executable, "-m", "llava.toy", "--output", str(settings.world)], {}, None)
    methods = list({run.method.projector: run.method for run in runs if not _is_finished(run)}.values())

    def train(method: Method) -> str:
        folder = _projector(settings, method).parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        stamp = {"projector": method.projector, "options": method.options}
        try:
            _once(folder, stamp, ["bash", "scripts/pretrain.sh"], _environment(settings, method, folder))
        except (ValueError, subprocess.CalledProcessError) as error:
            return f"FAILED ({getattr(error, 'stderr', None) or error})"
        return "done"

    with ThreadPoolExecutor(jobs) as pool:
        for method, state in zip(methods, pool.map(train, methods), strict=True):
            _say(f"stage 1, {method.projector or 'LLaVA'}: {state}")


def run_all(runs: Sequence[Run], settings: Settings, *, jobs: int) -> int:
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
        _say(f"[{done}/{len(runs)}] {run.name} seed {run.seed}: {state}; about {left:.0f} min left")
        return problem is None

    with ThreadPoolExecutor(jobs) as pool:
        return sum(not is_fine for is_fine in pool.map(report, runs))


def _is_finished(run: Run) -> bool:
    """Whether training and all points are done, by their stamps; the checkpoint may be gone."""
    steps = ("train", *(f"eval-{point}" for point in _points(run)))
    return all((run.folder / f"{step}.done").is_file() for step in steps)


def _points(run: Run) -> Mapping[str, str]:
    """Return what is evaluated, with the words of `--reduction` at inference."""
    return run.method.points or {run.name: ""}


def _carry_out(run: Run, settings: Settings) -> str | None:
    """Train and evaluate what is missing of one run; returns what went wrong."""
    run.folder.mkdir(parents=True, exist_ok=True)
    method, checkpoint = run.method, run.folder / "checkpoint"
    environment = {
        **_environment(settings, method, checkpoint),
        "SEED": str(run.seed),
        "MAX_STEPS": str(settings.steps),
        "ABLATION": method.ablation,
    }
    script = "finetune_dpn" if method.ablation else "finetune"
    trained = {**method.to_dict(), "steps": settings.steps, "seed": run.seed}
    try:
        _once(
            run.folder / "train",
            trained,
            ["bash", f"scripts/{script}.sh", *_flag(method.training_words())],
            environment,
        )
        for point, words in _points(run).items():
            folder = run.folder / "points" / point
            command = ["bash", "scripts/eval/run.sh", *_evaluation(checkpoint, folder, settings)]
            _once(
                run.folder / f"eval-{point}",
                {**trained, "words": words, "max_samples": settings.max_samples},
                [*command, *_flag(words.split())],
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


def _environment(settings: Settings, method: Method, output: Path) -> dict[str, str]:
    """Return what the training scripts, scripts/presets/toy.env and torch read."""
    return {
        "PRESET": "toy",
        "TOY": str(settings.world),
        "OUTPUT": str(output),
        "PROJECTOR": str(_projector(settings, method)),
        "PROJECTOR_TYPE": method.projector,
        "PROJECTOR_OPTIONS": method.options,
        "OMP_NUM_THREADS": str(settings.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _projector(settings: Settings, method: Method) -> Path:
    """Return where the projector of stage 1 lies."""
    return settings.projectors / (method.projector or "llava") / "mm_projector.bin"


def _flag(words: Sequence[str]) -> list[str]:
    return ["--reduction", *words] if words else []


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
