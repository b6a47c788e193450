"""What the words of a method mean in a decoder of some size: configuration, projector, or routes.

A method is a name of `METHODS` (a reduction, in the decoder or in front of it) or of `PROJECTORS`. Nothing
here knows a method by its name but DPN, whose routers a benchmark has to teach.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from llava.bench.compare.twin import tokens_in_front
from llava.bench.shapes import Shape
from llava.model.reduction import (
    METHODS,
    PROJECTORS,
    DpnConfig,
    FixedRateConfig,
    GridPool,
    MethodConfig,
    ProjectorConfig,
    ReducerConfig,
    check_fits,
    count_flops,
    expert_indices,
    kept_of,
    parse_projector,
    parse_reduction,
    parse_route,
    projector_to_dict,
)

KNOWN = ("dense", *METHODS, *PROJECTORS)
PUBLISHED_DEPTH = 32
"""Decoder layers of the models that the methods were published with."""


@dataclass(frozen=True)
class Setting:
    """One method as it is timed."""

    method: str
    words: tuple[str, ...]
    """FIELD=VALUE, as `--reduction` or `--mm_projector_options` take them, and `route=` for DPN."""
    reduction: MethodConfig | None = None
    projector: ProjectorConfig | None = None
    route: tuple[str, ...] = ()
    """Kernel of every DPE."""

    @property
    def where(self) -> str:
        """Where it acts: nowhere (dense), decoder, projector, or front (in front of the decoder)."""
        if self.projector is not None:
            return "projector"
        if self.reduction is None:
            return "nowhere"
        return "decoder" if isinstance(self.reduction, ReducerConfig) else "front"

    @property
    def saved_reduction(self) -> dict[str, Any] | None:
        """What config.json says of the reduction."""
        return None if self.reduction is None else self.reduction.to_dict()

    @property
    def saved_projector(self) -> tuple[str, dict[str, Any]] | None:
        """What config.json says of a projector with fewer tokens: its type and options."""
        return None if self.projector is None else (self.method, projector_to_dict(self.projector))


DENSE = Setting("dense", ())


def field_names(method: str) -> tuple[str, ...]:
    """Name what a user can set of a method."""
    config: Any = METHODS[method] if method in METHODS else PROJECTORS[method].config_class
    return tuple(field.name for field in fields(config))


def read_setting(method: str, words: Sequence[str], shape: Shape) -> Setting:
    """Type a method's words; places that aren't named are those published, at the same relative depth.

    Raises:
        ValueError: an unknown field, a value that can't be, places or a route that don't fit the decoder.
    """
    if method in PROJECTORS:
        return Setting(method, tuple(words), projector=parse_projector(method, words))
    routes = [word.removeprefix("route=") for word in words if word.startswith("route=")]
    given = [word for word in words if not word.startswith("route=")] if method == "dpn" else list(words)
    placed = [*_places(method, given, shape), *given]
    config = parse_reduction([method, *placed])
    assert config is not None
    if isinstance(config, ReducerConfig):
        check_fits(config, shape.num_layers)
    if not isinstance(config, DpnConfig):
        return Setting(method, tuple(placed), reduction=config)
    if len(routes) != 1:
        raise ValueError(
            f"dpn {' '.join(words)}: a benchmark teaches its routers one route; name it once, as in "
            f"route={','.join(['2x2', '1x2', '1x1'][: len(config.layers)])}"
        )
    route = tuple(routes[0].split(","))
    if len(parse_route(routes[0])) != len(config.layers):
        raise ValueError(f"route={routes[0]} needs one kernel per DPE, {len(config.layers)}")
    expert_indices([route], config.kernels)
    return Setting(method, (*placed, f"route={routes[0]}"), reduction=config, route=route)


def _places(method: str, given: Sequence[str], shape: Shape) -> list[str]:
    """Put reductions whose places aren't given where they stand in the published depth."""
    named = {word.partition("=")[0] for word in given}
    config: Any = METHODS[method]
    defaults: dict[str, Any] = {field.name: field.default for field in fields(config)}
    if not issubclass(config, ReducerConfig):
        return []
    if "layers" in defaults and "layers" not in named:
        return [f"layers={','.join(map(str, shape.dpe_layers))}"]
    if "layer" in defaults and "layer" not in named:
        layer = max(1, round(defaults["layer"] * shape.num_layers / PUBLISHED_DEPTH))
        return [f"layer={layer}"]
    return []


def visual_tokens(setting: Setting, shape: Shape) -> list[float]:
    """Compute the visual tokens of one image that every decoder layer sees.

    From configurations alone, but for methods in front of the decoder, whose counts may depend on the image:
    a tiny model with the same grid counts theirs.
    """
    config = setting.reduction
    places: tuple[int, ...] = config.places if isinstance(config, ReducerConfig) else ()
    counts: list[float] = [_entering(setting, shape)]
    grid = (shape.grid, shape.grid)
    kernels = parse_route(",".join(setting.route)) if setting.route else ()
    if isinstance(config, FixedRateConfig):
        kernels = config.windows
    edge = "ceil" if config is None else config.to_dict().get("edge", "ceil")
    for place in range(len(places)):
        if kernels:
            grid = GridPool(kernels[place], edge).grid(grid)
            counts.append(grid[0] * grid[1])
        else:
            assert isinstance(config, FixedRateConfig)
            share = config.shares[place]
            counts.append(kept_of(int(counts[-1]), share) if share else 0)
    ends = (*places, shape.num_layers)
    starts = (0, *places)
    return [count for count, low, high in zip(counts, starts, ends, strict=True) for _ in range(low, high)]


def _entering(setting: Setting, shape: Shape) -> float:
    """Count the visual tokens of an image that the decoder is given."""
    if setting.projector is not None:
        return setting.projector.num_tokens((shape.grid, shape.grid))
    if setting.where == "front":
        assert setting.saved_reduction is not None
        return tokens_in_front(setting.saved_reduction, shape)
    return shape.visual


def visual_share(tokens: Sequence[float], shape: Shape) -> float:
    """Give the share of the dense visual FLOPs (Eq. 8) that tokens per layer cost."""
    sizes = {"hidden_size": shape.hidden_size, "intermediate_size": shape.intermediate_size}
    return count_flops(tokens, **sizes) / count_flops([shape.visual] * shape.num_layers, **sizes)
