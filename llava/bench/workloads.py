"""What is in the clock: one prefill, one generation, or one forward and backward pass.

Shapes: B samples, T merged length.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from llava.bench.inputs import Batch
from llava.bench.timing import Task
from llava.bench.variants import Routes, Variant, check_routes
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.reduction import routing_of

IN_THE_CLOCK = {
    "prefill": "one forward pass over the prompts that fills a new cache and predicts the next token",
    "decode": "generate(): prefill, then greedy steps; a step is the time between two tokens",
    "train": "forward pass with loss, and backward pass; no optimizer step",
}


class Stopwatch(LogitsProcessor):
    """Notes when the logits of every generated token are there; changes nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Take the time once the device is done; `generate` itself waits for it in every step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter())
        return scores


def prefill(variant: Variant, batch: Batch, routes: Routes | None) -> Task:
    """Time to the first token."""
    inputs = variant.inputs(batch)

    @torch.no_grad()
    def run() -> Any:
        return variant.model(**inputs, use_cache=True, logits_to_keep=1)

    def after(output: Any) -> Mapping[str, float]:
        check_routes(variant, getattr(output, "routing", None), routes)
        return {}

    return Task(run, after)


def decode(variant: Variant, batch: Batch, routes: Routes | None, *, answer: int, has_tower: bool) -> Task:
    """Whole answers of `answer` tokens, with the time of every token."""
    device = batch.merged["inputs_embeds"].device
    settings = answer_settings(answer)

    def run() -> Any:
        watch = Stopwatch(device)
        began = time.perf_counter()
        output = _generate(variant, batch, has_tower)(
            **settings, logits_processor=LogitsProcessorList([watch])
        )
        return output, np.diff([began, *watch.times])

    def after(result: Any) -> Mapping[str, float]:
        output, times = result
        check_routes(variant, routing_of(output.past_key_values), routes)
        if len(times) != answer:
            raise ValueError(f"variant {variant.name} ended after {len(times)} of {answer} tokens")
        steps = {"step": float(np.median(times[1:]))} if answer > 1 else {}
        return {"first_token": float(times[0]), **steps}

    return Task(run, after)


def answer_settings(tokens: int) -> dict[str, Any]:
    """Give `generate`'s keywords for greedy answers of so many tokens, with the cache beside them."""
    return {
        "max_new_tokens": tokens,
        "do_sample": False,
        "use_cache": True,
        "return_dict_in_generate": True,
        "pad_token_id": 0,
    }


def _generate(variant: Variant, batch: Batch, has_tower: bool) -> Callable[..., Any]:
    """Give the variant's `generate` with its prompt; without a tower prompts are embeddings.

    Our own `generate` takes ids and pixels only, so that embeddings go to transformers' below it.
    """
    if variant.kind == "transformers":
        return lambda **kwargs: variant.model.generate(**batch.reference, **kwargs)  # pyright: ignore[reportCallIssue]
    if has_tower:
        return lambda **kwargs: variant.ours.generate(
            batch.ours["input_ids"], images=batch.ours["images"], **kwargs
        )
    prompt = batch.merged if variant.is_routed else batch.plain
    generate: Any = super(LlavaLlamaForCausalLM, variant.ours).generate  # pyright: ignore[reportAttributeAccessIssue]
    return lambda **kwargs: generate(**prompt, **kwargs)


def train(variant: Variant, batch: Batch, routes: Routes | None, engine: Any = None) -> Task:
    """One training step without the optimizer, behind the splice; under ZeRO in DeepSpeed's engine."""
    inputs = batch.plain if variant.kind == "transformers" else batch.merged
    model = variant.model if engine is None else engine

    def before() -> None:
        if engine is not None:
            dist.barrier()

    def run() -> Any:
        output = model(**inputs, labels=batch.labels, use_cache=False)
        output.loss.backward() if engine is None else engine.backward(output.loss)
        return output

    def after(output: Any) -> Mapping[str, float]:
        check_routes(variant, getattr(output, "routing", None), routes)
        variant.model.zero_grad(set_to_none=True) if engine is None else engine.step()
        return {"loss": float(output.loss.detach())}

    return Task(run, after, before)
