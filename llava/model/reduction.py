"""The seam: everything `llava` knows of `dpn`. No other file of this package imports it.

A reduction is chosen by `--reduction METHOD FIELD=VALUE ...`, stored in config.json, and acts inside the
decoder, or in front of the projector. A projector that gives fewer visual tokens is chosen by
`--mm_projector_type NAME`.
"""

from collections.abc import Sequence
from typing import Any

from dpn.attention import PacksSamples
from dpn.budget import LOWEST as LOWEST_SHIFT
from dpn.budget import BudgetTable, Steps, next_shifts
from dpn.build import build_reducer, build_selector, check_divides, check_fits, check_reachable
from dpn.cache import full_mask, past_mask, routing_of
from dpn.checks import check_shift, forced_routes
from dpn.compare import changed_fields, require_same_method, with_inference_fields
from dpn.config import DpnConfig, format_route
from dpn.consequences import Consequences
from dpn.dpe import DynamicPyramid
from dpn.experts import GridPool
from dpn.flops import DecoderShape, count_flops, count_full_flops, stage_cost, visual_cost
from dpn.layout import Layout
from dpn.loss import expected_rates, loss_of_routing
from dpn.method import FixedRateConfig, FrontConfig, MethodConfig, ReducerConfig
from dpn.methods import METHODS, from_dict, front_config, reducer_config
from dpn.parse import expert_indices, parse_fields, parse_reduction, parse_route
from dpn.projectors.base import ProjectorConfig, TowerShape, VisualProjector
from dpn.projectors.build import PROJECTORS, build_visual_projector
from dpn.projectors.options import did_you_mean, parse_projector, projector_from_dict, projector_to_dict
from dpn.pyramid import PyramidLlamaConfig, PyramidLlamaModel, PyramidOutput
from dpn.reducer import TokenReducer
from dpn.release import FIELD as POOLING
from dpn.release import config_from_pooling, has_router
from dpn.release import key_mapping as pooling_key_mapping
from dpn.routing import UNROUTED, Routing, per_layer
from dpn.selection import kept_of
from dpn.selectors.base import AttendedFeatures, SelectorConfig
from dpn.spans import LAST, ROUTER, TEXT, VISUAL

__all__ = [
    "LAST",
    "LOWEST_SHIFT",
    "METHODS",
    "POOLING",
    "PROJECTORS",
    "ROUTER",
    "ROUTING_TOKEN",
    "TEXT",
    "UNROUTED",
    "VISUAL",
    "AttendedFeatures",
    "BudgetTable",
    "Consequences",
    "DecoderShape",
    "DpnConfig",
    "DynamicPyramid",
    "FixedRateConfig",
    "FrontConfig",
    "GridPool",
    "Layout",
    "MethodConfig",
    "PacksSamples",
    "ProjectorConfig",
    "PyramidLlamaConfig",
    "PyramidLlamaModel",
    "PyramidOutput",
    "ReducerConfig",
    "Routing",
    "SelectorConfig",
    "Steps",
    "TokenReducer",
    "TowerShape",
    "VisualProjector",
    "build_reducer",
    "build_selector",
    "build_visual_projector",
    "changed_fields",
    "check_divides",
    "check_fits",
    "check_reachable",
    "check_shift",
    "config_from_pooling",
    "count_flops",
    "count_full_flops",
    "did_you_mean",
    "expected_rates",
    "expert_indices",
    "forced_routes",
    "format_route",
    "from_dict",
    "front_config",
    "full_mask",
    "has_router",
    "kept_of",
    "loss_of_routing",
    "next_shifts",
    "parse_projector",
    "parse_reduction",
    "parse_route",
    "past_mask",
    "per_layer",
    "pooling_key_mapping",
    "projector_from_dict",
    "projector_to_dict",
    "reducer_config",
    "reduction_at_inference",
    "routing_of",
    "routing_prompt",
    "stage_cost",
    "visual_cost",
]

ROUTING_TOKEN = "<ROUTER>"
"""The literal that the authors' checkpoints add to the vocabulary."""


def routing_prompt(config: MethodConfig | None) -> tuple[str, str] | None:
    """Give the routing token and its placement where a router reads one, else None."""
    if not isinstance(config, DpnConfig) or config.router_source == "last":
        return None
    return ROUTING_TOKEN, config.router_placement


def reduction_at_inference(
    saved: dict[str, Any] | None, words: Sequence[str] | None, num_layers: int
) -> dict[str, Any] | None:
    """Combine a checkpoint's reduction with the words of `--reduction` given at load time.

    A trained reduction accepts only the fields that don't change what its weights mean; a plain checkpoint
    accepts every method that needs no weights of its own.

    Raises:
        ValueError: the words contradict the checkpoint, or ask a plain one for trained routes.
    """
    if not words:
        return saved
    if list(words) == ["none"]:
        if saved is None:
            return None
        raise ValueError(
            f"the checkpoint was trained with a reduction ({saved.get('method')}), so it can't run with "
            f"--reduction none; identity routes of DPN are --reduction dpn eval_choice=static "
            f"route=1x1,1x1,1x1"
        )
    if saved is not None:
        trained, (method, fields) = from_dict(saved), parse_fields(words)
        require_same_method(trained, method)
        return with_inference_fields(trained, fields).to_dict()
    asked = parse_reduction(words)
    assert asked is not None
    if isinstance(asked, DpnConfig) and (
        asked.eval_choice == "argmax" or asked.gate != "none" or routing_prompt(asked)
    ):
        raise ValueError(
            f"the checkpoint has no router, so --reduction {' '.join(words)} can't route with it; train "
            f"one with "
            f"scripts/finetune_dpn.sh, or force routes with eval_choice=static route=2x2,2x2,2x2 or "
            f"eval_choice=random"
        )
    if isinstance(asked, ReducerConfig):
        check_fits(asked, num_layers)
    return asked.to_dict()
