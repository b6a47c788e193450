"""What is compared: transformers' model, our dense one, and pyramids on several routes.

Shapes: B samples, S DPE layers.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from torch import nn

from llava.bench.arguments import BenchArguments
from llava.bench.inputs import Batch
from llava.bench.models import build_ours, build_reference, teach_routes
from llava.bench.shapes import Shape
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.reduction import DpnConfig, DynamicPyramid, Routing, expert_indices, parse_reduction

Routes = list[list[int]]


@dataclass(frozen=True)
class Variant:
    """One model on the routes that it shall take."""

    name: str
    kind: str
    """transformers, dense, identity, uniform or mixed."""
    model: nn.Module
    route: tuple[str, ...] | None = None
    """Kernels of a uniform route."""

    @property
    def ours(self) -> LlavaLlamaForCausalLM:
        """Our model."""
        assert isinstance(self.model, LlavaLlamaForCausalLM)
        return self.model

    @property
    def is_routed(self) -> bool:
        """Whether the model has routers."""
        return self.kind in ("identity", "uniform", "mixed")

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Give the forward pass's arguments."""
        return batch.reference if self.kind == "transformers" else batch.ours

    def routes(self, size: int, seed: int) -> Routes:
        """Give the routes (B, S) of a batch; mixed ones differ from sample to sample as far as they can."""
        config = reduction_of(self.ours)
        if self.kind == "mixed":
            every = list(product(range(len(config.kernels)), repeat=len(config.layers)))
            order = np.random.default_rng(seed).permutation(len(every))
            return [list(every[order[sample % len(every)]]) for sample in range(size)]
        route = self.route or ("1x1",) * len(config.layers)
        return expert_indices([route] * size, config.kernels).tolist()

    def teach(self, batch: Batch, seed: int) -> Routes | None:
        """Make the routers choose this variant's routes for a batch; None where there are none.

        Raises:
            ValueError: they can't be made to, which fewer samples or a wider decoder would allow.
        """
        if not self.is_routed:
            return None
        routes = self.routes(batch.size, seed)
        teach_routes(self.ours, self.inputs(batch), routes)
        return routes


def reduction_of(model: LlavaLlamaForCausalLM) -> DpnConfig:
    """Give the configuration of a model's reducer."""
    assert isinstance(model.model.reducer, DynamicPyramid)
    return model.model.reducer.config


def check_routes(variant: Variant, routing: Routing | None, routes: Routes | None) -> None:
    """Refuse a run that took other routes than the variant is named after.

    Raises:
        ValueError: naming the variant, the sample and both routes.
    """
    if routes is None:
        return
    assert routing is not None
    for sample, (taken, wanted) in enumerate(
        zip(np.stack(routing.choices, axis=1).tolist(), routes, strict=True)
    ):
        if taken != wanted:
            raise ValueError(
                f"variant {variant.name}: the routers chose the experts {taken} for sample {sample} instead "
                f"of {wanted}; time smaller batches or a larger hidden_size, whose states differ more"
            )


def make_variants(arguments: BenchArguments, shape: Shape, mode: str) -> list[Variant]:
    """Build all models over one set of weights.

    Raises:
        ValueError: a route that names no expert or doesn't fit the number of DPEs.
    """
    has_tower = arguments.tower and mode != "train"
    routed = parse_reduction(["dpn", f"layers={','.join(map(str, shape.dpe_layers))}", "train_choice=argmax"])
    assert isinstance(routed, DpnConfig)
    uniform = [tuple(route.split(",")) for route in arguments.routes] if arguments.wants("uniform") else []
    for route in uniform:
        expert_indices([route], routed.kernels)
        if len(route) != len(routed.layers):
            raise ValueError(
                f"--routes takes one kernel per DPE ({len(routed.layers)}), got {','.join(route)!r}"
            )
    reference = build_reference(shape, arguments.torch_device, arguments.torch_dtype, arguments.seed)

    def ours(reduction: DpnConfig | None) -> LlavaLlamaForCausalLM:
        saved = None if reduction is None else reduction.to_dict()
        return build_ours(reference, shape, reduction=saved, has_tower=has_tower)

    found = [Variant("transformers", "transformers", reference)] if arguments.wants("transformers") else []
    found.append(Variant("dense", "dense", ours(None)))
    if arguments.wants("identity"):
        found.append(Variant("identity", "identity", ours(routed)))
    found += [Variant(",".join(route), "uniform", ours(routed), route) for route in uniform]
    if arguments.wants("mixed"):
        found.append(Variant("mixed", "mixed", ours(routed)))
    for variant in found:
        variant.model.train(mode == "train")
    return found
