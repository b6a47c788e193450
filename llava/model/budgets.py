"""`generate(..., budget=0.4)`: the file beside a checkpoint that says how far to shift its router.

budgets.json    the mean share of the dense FLOPs at every shift, as llava.eval.calibrate measured it

It belongs to one checkpoint with one configuration; with any other it is refused, not used.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from llava.model.identity import checkpoint_digest
from llava.model.reduction import (
    BudgetTable,
    DpnConfig,
    DynamicPyramid,
    TokenReducer,
    changed_fields,
    check_shift,
    expert_indices,
    forced_routes,
    format_route,
    from_dict,
)
from llava.model.report import SampleReport, flops_ratios

if TYPE_CHECKING:
    from llava.model.llava_llama import LlavaLlamaForCausalLM

FILE = "budgets.json"
COUNTINGS = {"visual": "paper", "full": "full"}
"""The countings of a budget, and their names in `flops_ratios`: Eq. 8 on visual tokens, or everything."""
_FORMAT = 1
_HOW = "python -m llava.eval.calibrate --model_path CHECKPOINT --benchmarks ... measures it"


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """A calibration, and for what it holds."""

    table: BudgetTable
    reduction: dict[str, Any]
    """`config.reduction` of the model that was measured."""
    checkpoint: str
    """`checkpoint_digest` of its directory."""
    provenance: dict[str, Any]
    """On what and with what it was measured."""
    found_beside: str | None = None
    """Digest of the checkpoint that the file was found beside; None for a calibration of this process."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the file of a checkpoint directory; None where there is none.

        Raises:
            ValueError: the file isn't what `write` writes.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["format"] != _FORMAT:
                raise ValueError(
                    f"format {saved['format']!r} is of another version (this one's is {_FORMAT})"
                )
            if set(saved["table"]) != {"shift", *COUNTINGS}:
                raise ValueError(f"its table has the columns {', '.join(saved['table'])}")
            return cls(
                table=BudgetTable.from_dict(saved["table"]),
                reduction=saved["reduction"],
                checkpoint=saved["checkpoint"],
                provenance=saved["provenance"],
                found_beside=checkpoint_digest(folder),
            )
        except KeyError as error:
            raise ValueError(f"{path} has no {error}; remove it and calibrate again: {_HOW}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}; remove it and calibrate again: {_HOW}") from error

    def write(self, folder: Path) -> Path:
        """Write the file beside a checkpoint, so that a reader never sees it half written."""
        content = {
            "format": _FORMAT,
            "checkpoint": self.checkpoint,
            "reduction": self.reduction,
            "provenance": self.provenance,
            "table": self.table.to_dict(),
        }
        path = folder / FILE
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    def shift_for(self, budget: float, counting: str, reduction: dict[str, Any]) -> float:
        """Give the shift for a budget of a model that runs with `reduction`.

        Raises:
            ValueError: measured for other weights or another configuration, or out of reach.
        """
        if self.found_beside not in (None, self.checkpoint):
            raise ValueError(
                f"budget={budget}: {FILE} was measured for other weights (checkpoint {self.checkpoint}) than "
                f"those it lies beside ({self.found_beside}); calibrate again: {_HOW}"
            )
        changed = changed_fields(from_dict(self.reduction), from_dict(reduction))
        if changed:
            raise ValueError(
                f"budget={budget}: {FILE} was measured with {', '.join(changed)}; leave --reduction out to "
                f"run a budget"
            )
        return self.table.shift_for(budget, counting)


def shift_for(
    budgets: Budgets | None, reduction: dict[str, Any] | None, budget: float, counting: str
) -> float:
    """Give the shift for a budget, or say why there is none.

    Raises:
        ValueError: no reduction, no router at work, no calibration, or what `Budgets.shift_for` refuses.
    """
    if counting not in COUNTINGS:
        raise ValueError(f"counting must be one of {', '.join(COUNTINGS)}, got {counting!r}")
    if not isinstance(budget, (int, float)) or isinstance(budget, bool):
        raise ValueError(f"budget is a share of the dense FLOPs, a number such as 0.4, got {budget!r}")
    if reduction is None:
        raise ValueError(f"budget={budget} needs a checkpoint with a reduction; this one is plain LLaVA")
    config = from_dict(reduction)
    if not isinstance(config, DpnConfig):
        raise ValueError(
            f"budget={budget} moves the choice of routers, and --reduction {config.method} has none; its own "
            f"fields say how many tokens it keeps"
        )
    if config.eval_choice != "argmax":
        raise ValueError(
            f"budget={budget} moves the router's choice, which eval_choice={config.eval_choice} doesn't ask"
        )
    if budgets is None:
        raise ValueError(f"budget={budget}: the checkpoint isn't calibrated, it has no {FILE}; {_HOW}")
    return budgets.shift_for(budget, counting, reduction)


def routing_arguments(model: "LlavaLlamaForCausalLM", batch: int, given: dict[str, Any]) -> dict[str, Any]:
    """Turn what `generate` was given on routes and budgets into what `forward` takes, and keep the rest.

    `routes` may be expert indices (B, S), or kernels by name, one list per prompt: [["1x1", "2x2", "1x2"],
    ...]. `budget` and `counting` ("visual" or "full") become `router_shift` (B,). The model stays as it is.

    Raises:
        ValueError: routes or a budget that this model can't follow, or both.
    """
    kept = dict(given)
    budget, counting, routes = (kept.pop(name, None) for name in ("budget", "counting", "routes"))
    if counting is not None and budget is None:
        raise ValueError(f"counting={counting!r} belongs to a budget; give budget=0.4, for example")
    if routes is not None:
        kept["routes"] = _indices(model.model.reducer, routes, batch)
    if kept.get("router_shift") is not None:
        check_shift(kept["router_shift"], batch)
        if not torch.isfinite(kept["router_shift"]).all():
            raise ValueError(f"router_shift must be finite, got {kept['router_shift'].tolist()}")
    if budget is None:
        return kept
    if routes is not None or kept.get("router_shift") is not None:
        other = "routes" if routes is not None else "router_shift"
        raise ValueError(f"budget={budget} and {other} both decide the routes; give one of them")
    if model.training:
        raise ValueError(f"budget={budget} is for inference; call model.eval() first")
    shift = shift_for(model.budgets, model.config.reduction, budget, counting or "visual")
    return {**kept, "router_shift": torch.full((batch,), shift, device=model.device)}  # (B,)


def mean_share(reports: Sequence[SampleReport], config: Any, counting: str = "visual") -> float:
    """Give the mean share of the dense FLOPs that prompts cost: what a budget came to.

    Prompts without visual tokens can't be reduced and are left out; nan where there is no other.
    """
    ratios = [
        flops_ratios(sample, config)[COUNTINGS[counting]]
        for sample in reports
        if sample.visual_tokens_per_layer[0]
    ]
    return sum(ratios) / len(ratios) if ratios else float("nan")


def with_budgets(model: "LlavaLlamaForCausalLM", path: str) -> None:
    """Give a freshly loaded model the calibration that lies in its checkpoint directory, if there is one."""
    if model.config.reduction is not None and Path(path).is_dir():
        model.budgets = Budgets.read(Path(path))


def _from_lists(reducer: DynamicPyramid, routes: Sequence[Sequence[str | int]]) -> Tensor:
    """Read routes (B, S) from lists of indices, or of kernels by name."""
    rows = [list(route) for route in routes if isinstance(route, Sequence) and not isinstance(route, str)]
    if len(rows) != len(routes) or len({len(route) for route in rows}) > 1:
        raise ValueError(
            f"routes need one list per prompt with one kernel per DPE layer {reducer.layers} each, like "
            f'[["1x1", "2x2", "1x2"], ...], or a tensor of indices; got {routes!r}'
        )
    if all(type(expert) is int for route in rows for expert in route):
        return torch.tensor(rows, dtype=torch.long)
    names = [[expert for expert in route if isinstance(expert, str)] for route in rows]
    if names == rows:
        return expert_indices(names, reducer.config.kernels)
    raise ValueError(
        f"routes name kernels ({format_route(reducer.config.kernels)}) or "
        f"their indices (-1: the router's choice), not both in one call, got {routes!r}"
    )


def _indices(
    reducer: TokenReducer | None, routes: Tensor | Sequence[Sequence[str | int]], batch: int
) -> Tensor:
    """Read routes of B prompts, given as indices (B, S) or as kernels by name."""
    if reducer is None:
        raise ValueError(
            "routes are given, but the checkpoint has no reduction to take them; load it with "
            "--reduction dpn eval_choice=static route=2x2,2x2,2x2, for example"
        )
    if not isinstance(reducer, DynamicPyramid):
        raise ValueError(
            f"routes are given, but --reduction {reducer.config.method} has no routers to take them; leave "
            f"them out"
        )
    if not isinstance(routes, Tensor):
        routes = _from_lists(reducer, routes)
    forced_routes(routes, batch, len(reducer.layers), reducer.num_experts)  # text prompts are refused, too
    return routes
