"""The training loop: transformers' Trainer with our batch order, parameter groups and metrics."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer, set_seed
from transformers.training_args import OptimizerNames

from llava.constants import IMAGE_TOKEN_INDEX
from llava.data.sampler import ModalityLengthSampler
from llava.train import saving
from llava.train.arguments import TrainingArguments
from llava.train.checkpoint import PartialWeights
from llava.train.routing_health import TrainingHealth
from llava.train.trainable import PROJECTOR, REDUCER, VISION_TOWER, part_of

logger = logging.getLogger(__name__)


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    decayed: set[str],
    *,
    weight_decay: float,
    learning_rates: dict[str, float],
) -> list[dict[str, Any]]:
    """Sort what is trained into groups of one learning rate and one weight decay.

    Args:
        parameters: all of the model's; those without `requires_grad` are left out.
        decayed: names that weight decay acts on (neither biases nor norms).
        weight_decay: of those.
        learning_rates: by part; parts that it doesn't name share the optimizer's own.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        part = part if part in learning_rates else "model"
        is_decayed = name in decayed
        if (part, is_decayed) not in groups:
            rate = {"lr": learning_rates[part]} if part in learning_rates else {}
            decay = weight_decay if is_decayed else 0.0
            groups[part, is_decayed] = {"params": [], "weight_decay": decay, **rate}
        groups[part, is_decayed]["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: "lr" in group)  # the first one's rate is what is logged


def keep_embeddings_whole(model: nn.Module) -> None:
    """Tell bitsandbytes' 8-bit optimizers to keep 32-bit states for embeddings, as transformers does."""
    import bitsandbytes  # noqa: PLC0415 - an extra # pyright: ignore[reportMissingImports]

    manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


class MetricMeans:
    """Running means of what the model reports, kept on its device so that no step waits for them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def pop(self) -> dict[str, float]:
        """Give the means since the last call and start again."""
        means = {name: (total / self.counts[name]).item() for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class LlavaTrainer(Trainer):
    """Trains LLaVA; checkpoints of a run that trains a part of the model hold that part (`partial`) alone.

    1. order: batches of one modality and like length, reproducible from (seed, epoch)
    2. groups: projector and reducer may have learning rates of their own
    3. step: transformers' loss; then the model is told that a step's forward is over
    4. log: the means of the model's metrics since the last line
    5. save: weights, whole or partial, beside transformers' optimizer, random and trainer state and every
       rank's routing state; a checkpoint gets its name when all of it is there (llava/train/saving.py)
    """

    def __init__(self, *args: Any, partial: PartialWeights | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.partial = partial
        self.metric_means = MetricMeans()
        sources = getattr(self.train_dataset, "sources", ())
        self.health = TrainingHealth(self.llava, sources=sources, device=self.args.device)
        # Trainer has just seeded all ranks alike; the routes they draw while training must not be the same.
        set_seed(self.args.seed + self.args.process_index)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        arguments = cast(TrainingArguments, self.args)
        if not arguments.group_by_modality_length:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return ModalityLengthSampler(
            cast(Any, dataset).modality_lengths,
            arguments.train_batch_size,
            arguments.world_size * arguments.gradient_accumulation_steps,
            seed=cast(int, arguments.data_seed),
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer over our parameter groups."""
        if self.optimizer is None:
            trained = cast(PreTrainedModel, self.model if model is None else model)
            optimizer_class, kwargs = self._optimizer_class(trained)
            groups = parameter_groups(
                trained.named_parameters(),
                set(self.get_decay_parameter_names(trained)),
                weight_decay=self.args.weight_decay,
                learning_rates=self._learning_rates(),
            )
            if not groups:
                raise ValueError("nothing is trained: all parts of the model are frozen")
            self.optimizer = optimizer_class(groups, **kwargs)
            if kwargs.get("optim_bits") == 8:
                keep_embeddings_whole(trained)
        return self.optimizer

    def _optimizer_class(self, model: PreTrainedModel) -> tuple[Any, dict[str, Any]]:
        """Look --optim up; optimizers that sort the parameters by themselves are refused."""
        optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        is_plain = isinstance(optimizer_class, type) and issubclass(optimizer_class, torch.optim.Optimizer)
        if not is_plain or kwargs.keys() & {"params", "model", "optimizer_dict"}:
            raise ValueError(
                f"--optim {OptimizerNames(self.args.optim).value} sorts the parameters by itself, which "
                "would bypass the learning rates of projector and reducer; choose another, e.g. adamw_torch"
            )
        return optimizer_class, kwargs

    def _learning_rates(self) -> dict[str, float]:
        arguments = cast(TrainingArguments, self.args)
        rates = {}
        if arguments.mm_projector_lr is not None:
            rates[PROJECTOR] = arguments.mm_projector_lr
        if self.llava.router_lr_scale != 1.0:
            rates[REDUCER] = arguments.learning_rate * self.llava.router_lr_scale
        return rates

    @property
    def llava(self) -> Any:
        """The model under whatever accelerate and PEFT have put around it."""
        model = self._unwrapped
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def _unwrapped(self) -> Any:
        """The model that was given: with its adapter, without what accelerate has put around it."""
        return self.accelerator.unwrap_model(self.model)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """Collect the micro batches of a step, and tell each its share of the step's samples with images.

        Counted as transformers counts supervised tokens: over all ranks where those are averaged over ranks.
        """
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.llava.model.reducer is None or not batches or num_items is None or self.args.n_gpu > 1:
            return batches, num_items
        counts = [(batch["input_ids"] == IMAGE_TOKEN_INDEX).any(1).sum() for batch in batches]
        total = torch.stack(counts).sum()
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = cast(Tensor, self.accelerator.gather(total.to(device))).sum()
        for batch, count in zip(batches, counts, strict=True):
            batch["routed_samples"] = torch.stack([count.to(total), total])
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Compute transformers' loss, collect the model's metrics, tell the model its step is over."""
        sources = inputs.pop("sources", None)  # for the log, not for the model
        loss, output = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=cast(Any, num_items_in_batch)
        )
        if model.training:
            self.llava.observe_step(output)
            self.metric_means.add(cast(Any, output).metrics or {})
            self.health.add(inputs, output, sources)
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the model's metrics, and what its routers do, to a line about training."""
        if "loss" in logs:
            logs = {**logs, **self.health.pop(self.metric_means.pop(), step=self.state.global_step)}
        super().log(logs, start_time)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint that doesn't fit; only the frozen tower is never in one."""
        missing = [name for name in load_result.missing_keys if part_of(name) != VISION_TOWER]
        unexpected = list(load_result.unexpected_keys)
        if missing or unexpected:
            raise ValueError(
                f"the checkpoint to go on from belongs to another model: it lacks {missing} and has "
                f"{unexpected} too many; choose another --output_dir to start afresh"
            )

    def _get_output_dir(self, trial: Any) -> str:
        """Name the folder that transformers writes checkpoints in; whole ones are moved to their place."""
        return str(saving.unfinished(self._output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint where nobody looks for one, then rename it and remove old ones."""
        with saving.refusing_half_saves(self._output_dir, is_writer=self.args.should_save):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                saving.publish(f"checkpoint-{self.state.global_step}", self._output_dir)
                saving.keep_newest(self._output_dir, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        saving.save_buffers(self.llava, Path(output_dir), self.args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Restore what training goes on with; the model's weights, also DeepSpeed's, are already there."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            saving.load_buffers(self.llava, Path(checkpoint), self.args.process_index)

    @property
    def _output_dir(self) -> Path:
        return Path(self.args.output_dir or "")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save all weights, or the part that is trained. Every rank must call it."""
        if self.partial is None:
            super().save_model(output_dir, _internal_call)
        else:
            folder = Path(output_dir or self.args.output_dir or "")
            self.partial.save(self._unwrapped, folder, is_writer=self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Put a checkpoint's weights into the model, to go on from it."""
        if self.partial is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.partial.load(self._unwrapped, Path(resume_from_checkpoint))
