"""What routers and decoder do, for every line of the log: sums of all ranks since the last line.

Methods without routers give the tokens and FLOPs only.

language_loss, routing_loss, ...   the model's own metrics, averaged over ranks
share_1x2@8                        share of the routed samples that the DPE in front of layer 8 gave to 1x2
entropy@8                          mean entropy of its router's probabilities, in nats (ln 3: no preference)
rate, realised_rate, target_rate   bits of compression per DPE: by probabilities, by choices, and t of Eq. 6
visual_flops, flops, budget        share of the dense FLOPs: paper's counting, full counting, what is wanted
tokens@0, visual_tokens@8, ...     mean tokens of a sample in the layers from this one to the next DPE
realised_rate/coco                 the same rate for samples of one source
tokens_per_second                  tokens in front of the decoder, of all ranks

Shapes: B samples, S DPE layers, E experts, K sources.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.reduction import UNROUTED, DpnConfig, Routing, expected_rates, per_layer
from llava.model.report import SampleReport, flops_ratios
from llava.train.collapse import CollapseAlarm


class TrainingHealth:
    """Collects one number after another, without waiting for the device, until a line is logged."""

    def __init__(
        self,
        model: Any,
        *,
        sources: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """Watch a model.

        Args:
            model: `LlavaLlamaForCausalLM`, or anything with `model.reducer`; other models are only timed.
            sources: names of the data's sources, which batches give by number.
            device: where ranks exchange numbers.
        """
        reducer = getattr(getattr(model, "model", None), "reducer", None)
        self.model = model
        config = getattr(reducer, "config", None)
        self.config: DpnConfig | None = config if isinstance(config, DpnConfig) else None
        """Of the routers, where there are any."""
        self.places: tuple[int, ...] = () if config is None else config.places
        self.sources = sources
        self.device = device
        self.alarm = None if self.config is None else CollapseAlarm(self.config)
        self.names = self._names()
        self.sums = torch.zeros(len(self.names), dtype=torch.float64)
        self.tokens: Tensor | None = None
        self.uncertain: list[Tensor] = []
        """Per micro batch (S, 3) on the device: routed samples, their entropies and expected rates."""
        self.began = time.perf_counter()

    def add(self, inputs: Mapping[str, Any], output: Any, sources: Sequence[int] | None) -> None:
        """Count one micro batch: what went in, what came out, and the sources of its B samples."""
        self._count_tokens(inputs)
        routing = getattr(output, "routing", None)
        if not self.places or routing is None:
            return
        found = dict.fromkeys(self.names, 0.0)
        is_counted = routing.visual_counts[0] > 0  # (B,)
        if self.config is not None:
            is_counted = routing.is_routed.any(0)
            self._note_uncertainty(routing, self.config)
            self._count_choices(found, routing, sources)
        self._count_work(found, routing, is_counted)
        self.sums += torch.tensor([found[name] for name in self.names], dtype=torch.float64)

    def pop(self, metrics: Mapping[str, float], *, step: int = 0) -> dict[str, float]:
        """Give a line's numbers and start again; every rank must call it at the same step.

        Args:
            metrics: the model's means on this rank; those that every rank has are averaged over the ranks.
            step: that the line is about.
        """
        elapsed = time.perf_counter() - self.began
        common = [
            name
            for name in ("language_loss", "routing_loss", "policy_loss", "value_loss", "mu")
            if name in metrics
        ]
        tokens = 0.0 if self.tokens is None else float(self.tokens)
        local = [1.0, tokens, *(metrics[name] for name in common)]
        unsure = torch.stack(self.uncertain).sum(0).double().cpu().flatten() if self.uncertain else None
        stages = 0 if self.config is None else len(self.config.layers)
        parts = [torch.tensor(local, dtype=torch.float64), self.sums]
        parts.append(torch.zeros(3 * stages, dtype=torch.float64) if unsure is None else unsure)
        whole = self._over_ranks(torch.cat(parts))
        ranks, tokens, *means = whole[: len(local)].tolist()
        sums = dict(zip(self.names, whole[len(local) :].tolist(), strict=False))
        line = {**metrics, **{name: value / ranks for name, value in zip(common, means, strict=True)}}
        if self.places:
            routed = whole[len(whole) - 3 * stages :].reshape(stages, 3)
            line |= self._routing_line(sums, routed, step)
        if elapsed > 0:
            line["tokens_per_second"] = round(tokens / elapsed, 1)
        self.sums.zero_()
        self.tokens, self.uncertain, self.began = None, [], time.perf_counter()
        return line

    def _names(self) -> list[str]:
        """Name the sums that every rank has, in one order."""
        if not self.places:
            return []
        kernels = [] if self.config is None else _kernel_names(self.config)
        sources = () if self.config is None else self.sources
        return [
            *(f"share_{kernel}@{layer}" for layer in self.places for kernel in kernels),
            *(f"{kind}@{layer}" for layer in (0, *self.places) for kind in ("tokens", "visual_tokens")),
            *("samples", "visual_flops", "flops"),
            *(f"{what}/{source}" for source in sources for what in ("rate", "count")),
        ]

    def _count_tokens(self, inputs: Mapping[str, Any]) -> None:
        """Add the tokens in front of the decoder; a rough number where images are unlike."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None:
            return
        count = ids.numel() if mask is None else mask.sum()
        shape = getattr(getattr(self.model, "model", None), "crop_shape", None)
        per_image = 1 if shape is None else shape.tokens
        tokens = count + (ids == IMAGE_TOKEN_INDEX).sum() * (per_image - 1)
        self.tokens = tokens if self.tokens is None else self.tokens + tokens

    def _note_uncertainty(self, routing: Routing, config: DpnConfig) -> None:
        """Keep what the probabilities say, on the device."""
        probabilities = routing.probabilities.detach()  # (S, B, E)
        weight = torch.from_numpy(routing.is_routed).to(probabilities.device, torch.float32)
        entropies, rates = routing.entropies.detach(), expected_rates(probabilities, config)
        self.uncertain.append(torch.stack([weight, entropies * weight, rates * weight], -1).sum(1))  # (S, 3)

    def _count_choices(
        self, found: dict[str, float], routing: Routing, sources: Sequence[int] | None
    ) -> None:
        """Add how often every expert was chosen, and the rate of every source (realised, per DPE)."""
        assert self.config is not None
        routed = routing.is_routed  # (S, B)
        kernels, rates = _kernel_names(self.config), np.array(self.config.rates)
        for layer, choice in zip(routing.layers, routing.choices, strict=True):
            for index, kernel in enumerate(kernels):
                found[f"share_{kernel}@{layer}"] += float((choice == index).sum())
        if sources is None or not self.sources:
            return
        chosen = np.stack(routing.choices)  # (S, B)
        bits = np.where(chosen == UNROUTED, 0.0, rates[np.maximum(chosen, 0)])
        for row, source in enumerate(sources):
            found[f"rate/{self.sources[source]}"] += float(bits[:, row].sum())
            found[f"count/{self.sources[source]}"] += float(routed[:, row].sum())

    def _count_work(self, found: dict[str, float], routing: Routing, is_counted: np.ndarray) -> None:
        """Add tokens per stage and FLOPs of some samples (B,): those routed, or those with an image."""
        config = self.model.config
        if not is_counted.any():
            return
        for layer, tokens, visual in zip(
            (0, *routing.layers), routing.token_counts, routing.visual_counts, strict=True
        ):
            found[f"tokens@{layer}"] += float(tokens[is_counted].sum())
            found[f"visual_tokens@{layer}"] += float(visual[is_counted].sum())
        layers = config.num_hidden_layers
        tokens = per_layer(routing.token_counts, routing.layers, layers)  # (B, layers)
        visual = per_layer(routing.visual_counts, routing.layers, layers)
        for row in np.flatnonzero(is_counted):
            sample = SampleReport(
                routing.route_names(int(row)), (), tuple(tokens[row].tolist()), tuple(visual[row].tolist())
            )
            ratios = flops_ratios(sample, config)
            found["visual_flops"] += ratios["paper"]
            found["flops"] += ratios["full"]
            found["samples"] += 1

    def _routing_line(self, sums: Mapping[str, float], unsure: Tensor, step: int) -> dict[str, float]:
        """Divide the sums of all ranks; `unsure` (S, 3) is samples, entropies and expected rates."""
        if not sums["samples"]:
            return {}
        line = {} if self.config is None else self._choices_line(sums, unsure, step)
        if self.config is not None and self.config.loss_weight:
            line["target_rate"] = self.config.target
        if self.config is not None and self.config.budget:
            line["budget"] = self.config.budget
        for name in self.names:
            if "tokens@" in name or name in {"visual_flops", "flops"}:
                line[name] = sums[name] / sums["samples"]
        for source in self.sources:
            if sums.get(f"count/{source}"):
                line[f"realised_rate/{source}"] = sums[f"rate/{source}"] / sums[f"count/{source}"]
        return line

    def _choices_line(self, sums: Mapping[str, float], unsure: Tensor, step: int) -> dict[str, float]:
        """Give shares, entropies and rates, and let the alarm see them."""
        assert self.config is not None
        assert self.alarm is not None
        kernels, line, realised = _kernel_names(self.config), {}, 0.0
        counts: dict[int, list[float]] = {}
        for row, layer in enumerate(self.config.layers):
            count, entropy, _ = unsure[row].tolist()
            counts[layer] = [sums[f"share_{kernel}@{layer}"] for kernel in kernels]
            realised += sum(n * rate for n, rate in zip(counts[layer], self.config.rates, strict=True))
            if count:
                line[f"entropy@{layer}"] = entropy / count
                line |= {
                    f"share_{kernel}@{layer}": chosen / count
                    for kernel, chosen in zip(kernels, counts[layer], strict=True)
                }
        decisions, entropy, expected = unsure.sum(0).tolist()
        line |= {"router_entropy": entropy / decisions, "rate": expected / decisions}
        line["realised_rate"] = realised / decisions
        entropies = {layer: line.get(f"entropy@{layer}") for layer in counts}
        self.alarm.see(step, counts, entropies)
        return line

    def _over_ranks(self, values: Tensor) -> Tensor:
        """Sum a vector over all ranks; one process gets it back."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return values
        shared = values.to(self.device)
        distributed.all_reduce(shared)
        return shared.cpu()


def _kernel_names(config: DpnConfig) -> list[str]:
    return [f"{rows}x{columns}" for rows, columns in config.kernels]
