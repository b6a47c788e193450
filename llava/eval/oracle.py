"""Answer the same questions on the router's routes, then on every route there is, with one loaded model.

python -m llava.eval.oracle --benchmarks gqa --model_path CHECKPOINT --output_dir results/oracle --limit 200
python -m dpn.analysis.oracle results/oracle --output results/oracle

OUTPUT/router holds what the checkpoint does by itself, OUTPUT/1x1,2x2,2x2 and so on what it answers on that
route; each is a result folder as `python -m llava.eval` writes it, and a killed run goes on like one.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.eval.__main__ import evaluate, refuse_problems
from llava.eval.arguments import EvalArguments
from llava.eval.preflight import plan_run
from llava.eval.ranks import Ranks
from llava.eval.runner import Session
from llava.eval.session import load_session
from llava.model.reduction import DpnConfig, from_dict, parse_route, reduction_at_inference

ROUTER = "router"
"""Folder of the router's own answers, beside those of the routes."""


@dataclass(kw_only=True)
class OracleArguments(EvalArguments):
    """What is asked, as in `python -m llava.eval`, and on which routes."""

    routes: list[str] | None = field(
        default=None, metadata={"help": "routes to force, like 1x1,2x2,2x2; unset: all that there are"}
    )


@dataclass(kw_only=True)
class ForcedArguments(EvalArguments):
    """An evaluation with one route for every question."""

    route: tuple[str, ...] = ()

    def generation(self, max_new_tokens: int) -> dict[str, Any]:
        """Return the keywords for `generate`, the kernel of every DPE among them."""
        return super().generation(max_new_tokens) | {"route": list(self.route)}


def main(words: Sequence[str] | None = None) -> None:
    """Ask; what is wrong with flags, files or checkpoints ends in one line, not in a traceback."""
    parser = HfArgumentParser(
        DataClassType(OracleArguments), prog="python -m llava.eval.oracle", description=__doc__
    )
    try:
        arguments, *_ = parser.parse_args_into_dataclasses(list(words) if words is not None else None)
        run(arguments)
    except ValueError as error:
        sys.exit("; ".join([f"llava.eval.oracle: {error}", *getattr(error, "__notes__", [])]))


def run(arguments: OracleArguments) -> None:
    """Check everything, load the model once, then ask on the router's routes and on every forced one."""
    ranks = Ranks.from_environment()
    own = replace(arguments, output_dir=str(Path(arguments.output_dir) / ROUTER))
    plans = plan_run(own, ranks)
    ranks.join()
    session = load_session(arguments, ranks, arguments.reduction)
    routes = routes_of(session, arguments.routes)
    problems = [evaluate(plan, session, ranks, own) for plan in plans]
    for route in routes:
        forced = force(arguments, route)
        for plan in plan_run(forced, ranks):
            problems.append(evaluate(plan, on_route(session, route), ranks, forced))
    ranks.leave()
    refuse_problems(problems)


def routes_of(session: Session, asked: Sequence[str] | None) -> list[tuple[str, ...]]:
    """Return the routes to force: those asked for, else every choice of a kernel for every DPE.

    Raises:
        ValueError: a checkpoint without a reduction, or a route that it doesn't have.
    """
    if session.reduction is None:
        raise ValueError(
            f"{session.model_id} is a plain LLaVA, which has no routes; give --reduction dpn layers=8,16,24 "
            "eval_choice=random to try routes on it untrained"
        )
    config = from_dict(session.reduction)
    if not isinstance(config, DpnConfig):
        raise ValueError(
            f"{session.model_id} runs --reduction {config.method}, which has no routes; the oracle needs dpn"
        )
    kernels = [f"{rows}x{columns}" for rows, columns in config.kernels]
    every = list(itertools.product(kernels, repeat=len(config.layers)))
    if asked is None:
        return every
    routes = [tuple(f"{rows}x{columns}" for rows, columns in parse_route(route)) for route in asked]
    for text, route in zip(asked, routes, strict=True):
        if route not in every:
            raise ValueError(
                f"--routes {text}: not a route of {session.model_id}; one of {', '.join(kernels)} for each "
                f"of its {len(config.layers)} DPE layers, with commas between"
            )
    return routes


def force(arguments: OracleArguments, route: tuple[str, ...]) -> ForcedArguments:
    """Return the evaluation with one route for every question, in a folder of its own; no budget."""
    shared = {item.name: getattr(arguments, item.name) for item in fields(EvalArguments)}
    folder = Path(arguments.output_dir) / ",".join(route)
    return ForcedArguments(**shared | {"output_dir": str(folder), "budget": None}, route=route)


def on_route(session: Session, route: tuple[str, ...]) -> Session:
    """Return the session as scores.json is to describe it: the same weights with a static choice."""
    words = ["dpn", "eval_choice=static", f"route={','.join(route)}"]
    layers = session.model.config.num_hidden_layers
    return replace(session, reduction=reduction_at_inference(session.reduction, words, layers))


if __name__ == "__main__":
    main()
