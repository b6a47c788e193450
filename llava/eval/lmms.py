"""A model for lmms-eval, which finds it by the entry point `lmms_eval.models`.

    python -m lmms_eval --model dpn_llava --model_args pretrained=CHECKPOINT --tasks mme --batch_size 1

lmms-eval is imported only by its own calls: nothing here needs it. Its prompts and metrics are not LLaVA's
(docs/evaluation.md), so its scores belong in tables of their own.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.chat import Assistant, Decoding, load_assistant

MODEL = "dpn_llava"
_CLASS = "DpnLlava"
_LONGEST_ANSWER = 1024
_IGNORED = ("batch_size", "max_batch_size", "device_map")
"""What lmms-eval passes to every model: questions are asked one by one here."""


def manifest() -> Any:
    """Return what lmms-eval's registry wants to know; the entry point names this function."""
    from lmms_eval.models.registry_v2 import ModelManifest  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    return ModelManifest(model_id=MODEL, simple_class_path=f"{__name__}.{_CLASS}")


class Adapter:
    """What lmms-eval asks of a model, apart from its base class."""

    is_simple = True
    task_dict: Mapping[str, Any]
    """Task -> split -> documents; lmms-eval fills it."""

    def __init__(
        self,
        pretrained: str,
        model_base: str | None = None,
        conv_template: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        budget: str | float | None = None,
        **others: Any,
    ) -> None:
        """Load a checkpoint.

        Args:
            pretrained: checkpoint directory or hub id.
            model_base: language model of a projector-only or LoRA directory.
            conv_template: conversation template; None takes the checkpoint's own.
            device: auto, cpu, cuda or cuda:N.
            dtype: auto, float32, float16 or bfloat16.
            budget: mean share of the dense FLOPs, for a calibrated checkpoint.
            others: lmms-eval's batch sizes.

        Raises:
            ValueError: another argument, or a checkpoint that can't be loaded.
        """
        super().__init__()
        unknown = sorted(set(others) - set(_IGNORED))
        if unknown:
            raise ValueError(f"--model_args has {', '.join(unknown)}, which {MODEL} doesn't take")
        self._rank, self._world_size = (
            int(os.environ.get(name, d)) for name, d in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        if self._world_size > 1:
            from accelerate import Accelerator  # noqa: PLC0415

            self.accelerator = Accelerator()  # lmms-eval gathers results through it
            device = str(self.accelerator.device) if device in ("auto", "cuda") else device
        self.budget = None if budget is None else float(budget)
        self.assistant: Assistant = load_assistant(
            pretrained, model_base, conv_mode=conv_template, device=device, dtype=dtype
        )

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests of (context, generation settings, document to images, document, task, split)."""
        return [self._answer(*request.args) for request in requests]

    def _answer(
        self, context: str, settings: Mapping[str, Any], to_visual: Any, document: Any, task: str, split: str
    ) -> str:
        visuals = to_visual(self.task_dict[task][split][document]) or []
        images = [image.convert("RGB") for image in visuals]
        mark = self.assistant.image_mark()
        if DEFAULT_IMAGE_TOKEN in context:
            question = context.replace(DEFAULT_IMAGE_TOKEN, mark)
        else:
            question = " ".join([mark] * len(images)) + ("\n" if images else "") + context
        return self.assistant.answer(
            self.assistant.prompt([(question, None)]), images, self.decoding(settings)
        )

    def decoding(self, settings: Mapping[str, Any]) -> Decoding:
        """Read a task's generation settings; `until` means nothing to a model that ends answers itself."""
        is_sampled = settings.get("do_sample", True)
        return Decoding(
            temperature=(settings.get("temperature") or 0.0) if is_sampled else 0.0,
            top_p=settings.get("top_p"),
            num_beams=settings.get("num_beams") or 1,
            max_new_tokens=settings.get("max_new_tokens") or _LONGEST_ANSWER,
            budget=self.budget,
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: tasks that compare likelihoods aren't supported."""
        raise NotImplementedError(f"{MODEL} answers questions; tasks with loglikelihood can't be run with it")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: dialogues of several rounds aren't supported."""
        raise NotImplementedError(f"{MODEL} answers one question at a time; multi-round tasks can't be run")


def __getattr__(name: str) -> Any:
    """Make lmms-eval's class on its first use: it derives from lmms-eval's own."""
    if name != _CLASS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmms_eval.api.model import lmms  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    return type(_CLASS, (Adapter, lmms), {"__module__": __name__, "__doc__": Adapter.__doc__})
