"""`python -m llava.train --estimate`, and the same table in front of every run: memory per GPU.

It is an estimate: parameters are counted exactly, activations by what autograd keeps of a Llama layer;
fragmentation, kernels' workspaces and the vision tower's passing tensors are left to the margin.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.encode import encode_uncut
from llava.data.records import Record, read_records
from llava.model.crop_shape import crop_shape
from llava.model.reduction import (
    DpnConfig,
    FixedRateConfig,
    MethodConfig,
    ReducerConfig,
    parse_reduction,
    reducer_config,
    visual_cost,
)
from llava.model.tokenizer import load_tokenizer
from llava.model.vision_tower import vision_config
from llava.train.arguments import Arguments, parse
from llava.train.asked_reduction import check_reduction
from llava.train.footprint import (
    Counts,
    Engine,
    Memory,
    activation_bytes,
    count_parameters,
    held_bytes,
    readable,
)
from llava.train.longest import Load, longest_batch
from llava.train.numbers import check_numbers
from llava.train.sources import require_source

logger = logging.getLogger(__name__)

MARGIN = 1.1
"""What fits on paper needs about a tenth more in practice."""
LEARNED_SHARE = 0.5
"""Of a sample's text, where no data says it."""


class Estimate(NamedTuple):
    """Memory per GPU of a run."""

    counts: Counts
    engine: Engine
    load: Load
    expected: Memory
    """With the routes that the reduction's target or budget asks for."""
    unpooled: Memory
    """With every route 1x1: the worst case; equal where nothing is routed."""


def main(argv: Sequence[str]) -> str:
    """Estimate what a command line's run needs; its data may be missing.

    Raises:
        ValueError: flags that can't be read or contradict each other.
    """
    arguments = parse(argv)
    require_source("model_name_or_path", arguments.model.model_name_or_path, "the base language model")
    require_source("vision_tower", arguments.model.vision_tower, "the CLIP vision tower")
    check_numbers(arguments.training)
    reduction = parse_reduction(arguments.model.reduction)
    check_reduction(arguments, reduction)
    path = arguments.data.data_path
    records = read_records(path) if path and Path(path).is_file() else []
    if path and not records:
        logger.warning("--data_path %s isn't there: estimated for the longest samples that can come", path)
    world_size = arguments.training.estimate_gpus or _world_size()
    return describe(estimate(arguments, reduction, records, world_size=world_size), arguments)


def estimate(
    arguments: Arguments, reduction: MethodConfig | None, records: Sequence[Record], *, world_size: int
) -> Estimate:
    """Compute the memory per GPU, for the longest micro batch of the records."""
    training = arguments.training
    counts = count_parameters(arguments, reduction)
    engine = Engine.of(training, world_size)
    per_image = crop_shape(counts.config, vision_config(str(arguments.model.vision_tower))).tokens
    load = batch_load(arguments, records, per_image=per_image, world_size=world_size)
    held = held_bytes(counts, engine)
    routing = reducer_config(counts.config.reduction)
    layers = counts.config.num_hidden_layers

    def with_routes(keeps: Sequence[float]) -> Memory:
        visual = [load.visual_tokens * keep for keep in keeps]
        return held._replace(
            activations=activation_bytes(
                [count + load.text_tokens for count in visual],
                counts.config,
                num_learned=load.learned_tokens,
                is_half=engine.is_half,
                is_autocast=engine.is_half and engine.stage == 0,
                is_checkpointed=bool(training.gradient_checkpointing),
            )
        )

    unpooled = with_routes([1.0] * layers)
    expected = unpooled if routing is None else with_routes(expected_keep(routing, counts))
    if isinstance(routing, FixedRateConfig):
        unpooled = expected  # what it keeps doesn't depend on anything learned
    return Estimate(counts, engine, load, expected, unpooled)


def expected_keep(routing: ReducerConfig, counts: Counts) -> list[float]:
    """Give the share of the visual tokens that every layer is expected to see.

    Methods without routers and forced routes give it exactly; a budget or a rate of Eq. 6 gives one factor
    for every DPE; where nothing is asked for, experts are drawn alike, as at the beginning of training.
    """
    factors = _expected_factors(routing, counts)
    shares = np.cumprod([1.0, *factors])
    sizes = np.diff([0, *routing.places, counts.config.num_hidden_layers])
    return np.repeat(shares, sizes).tolist()


def _expected_factors(routing: ReducerConfig, counts: Counts) -> Sequence[float]:
    """Give what is expected to be left behind every place (S,)."""
    if isinstance(routing, FixedRateConfig):
        return routing.shares
    assert isinstance(routing, DpnConfig)
    areas = np.array([rows * columns for rows, columns in routing.kernels])
    if routing.train_choice == "static":
        return [1 / areas[index] for index in routing.static_choice]
    factor = float((1 / areas).mean())
    if routing.objective == "hinge" and routing.loss_weight:
        factor = 2.0**-routing.target
    elif routing.budget:
        factor = _factor_of(routing, counts)
    return [factor] * len(routing.layers)


def _factor_of(routing: DpnConfig, counts: Counts) -> float:
    """Find the factor of every DPE whose visual FLOPs are the budget, by bisection."""
    config, low, high = counts.config, 0.0, 1.0
    sizes = np.diff([0, *routing.layers, config.num_hidden_layers])
    for _ in range(30):
        middle = (low + high) / 2
        tokens = 576 * np.repeat(middle ** np.arange(len(routing.layers) + 1), sizes)[None]
        cost = visual_cost(
            tokens, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size
        )[0]
        low, high = (middle, high) if cost < routing.budget else (low, middle)
    return high


def batch_load(arguments: Arguments, records: Sequence[Record], *, per_image: int, world_size: int) -> Load:
    """Measure the longest micro batch; without records, every sample is as long as allowed, with an image.

    Args:
        arguments: of the run.
        records: its data.
        per_image: visual tokens that an image becomes.
        world_size: ranks.
    """
    model, _, training = arguments
    size, longest = training.per_device_train_batch_size, training.model_max_length
    if not records:
        text = max(longest - per_image, 0)
        return Load(size * min(per_image, longest), size * text, int(size * text * LEARNED_SHARE))
    tokenizer = load_tokenizer(str(model.model_name_or_path), cache_dir=training.cache_dir)
    words = [sum(len(message["value"].split()) for message in record.conversations) for record in records]
    lengths = [
        count if record.image is not None else -count for count, record in zip(words, records, strict=True)
    ]
    chosen = longest_batch(
        lengths,
        batch_size=size,
        num_chunks=world_size * training.gradient_accumulation_steps,
        tokens_per_image=per_image,
        longest=longest,
        is_grouped=training.group_by_modality_length,
        seed=training.data_seed or 0,
    )
    visual = text = learned = 0
    for record in (records[index] for index in chosen):
        encoded = encode_uncut(
            record.conversations, tokenizer, version=model.version, has_image=record.image is not None
        )
        images = int((encoded.input_ids == IMAGE_TOKEN_INDEX).sum())
        visual += images * per_image
        text += max(0, min(len(encoded.input_ids) - images, longest - images * per_image))
        learned += int((encoded.labels != IGNORE_INDEX).sum())
    return Load(visual, text, min(learned, text))


def describe(found: Estimate, arguments: Arguments) -> str:
    """Write the estimate as a table, with what this machine has."""
    counts, engine, load = found.counts, found.engine, found.load
    training = arguments.training
    zero = f"ZeRO-{engine.stage}" if engine.stage else "no ZeRO"
    tokens = load.visual_tokens + load.text_tokens
    rows = [(name, size) for name, size in found.expected.held.items()]
    rows.append(("activations, expected routes", found.expected.activations))
    if found.expected != found.unpooled:
        rows.append(("activations, nothing pooled", found.unpooled.activations))
    rows.append(("in all", found.expected.total))
    if found.expected != found.unpooled:
        rows.append(("in all, nothing pooled", found.unpooled.total))
    if found.expected.host:
        rows.append(("host memory beside each GPU", found.expected.host))
    head = (
        f"estimate per GPU: {engine.world_size} GPU(s), {zero}, micro batch "
        f"{training.per_device_train_batch_size} ({tokens:,} tokens, {load.visual_tokens:,} of them visual), "
        f"{counts.total / 1e9:.3f} B parameters, {counts.trained / 1e9:.3f} B trained"
    )
    lines = [head, *(f"  {name:<30}{readable(size):>12}" for name, size in rows), f"  {verdict(found)}"]
    return "\n".join(lines)


def verdict(found: Estimate) -> str:
    """Compare the estimate with this machine's memory."""
    there, name, sharers = memory_there()
    need, worst = found.expected.total * MARGIN * sharers, found.unpooled.total * MARGIN * sharers
    has = f"there is {readable(there)} ({name})"
    with_margin = f"{readable(need)} with a margin of {MARGIN - 1:.0%}"
    if sharers > 1:
        with_margin += f" for {sharers} processes"
    if need > there:
        return (
            f"{has}, and {with_margin} is needed: IT WILL HARDLY FIT. Lower the micro batch and raise the "
            "accumulation, use a higher ZeRO stage or more GPUs, or train adapters (--lora_enable)"
        )
    if worst > there:
        dense = f"{readable(worst)}, needed while routers still leave all tokens, doesn't"
        return f"{has}; {with_margin} fits, but {dense}"
    return f"{has}; {with_margin} fits"


def memory_there() -> tuple[float, str, int]:
    """Give the bytes of one GPU, its name and 1; without one, the host's and how many processes share it."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return float(properties.total_memory), properties.name, 1
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    total = total if allowed == "max" else min(total, float(allowed))
    return total, "this machine's memory; no GPU", int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _world_size() -> int:
    """Count the ranks of this launch, or the GPUs of this machine."""
    return int(os.environ.get("WORLD_SIZE", "0")) or max(1, torch.cuda.device_count())
