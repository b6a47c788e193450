"""Load a checkpoint for evaluation: device, dtype, conversation template, routing token."""

from collections.abc import Sequence
from typing import Any, cast

import torch

from llava.conversation import conv_templates
from llava.eval.arguments import ModelArguments
from llava.eval.inputs import Placement, PromptStyle
from llava.eval.ranks import Ranks
from llava.eval.runner import Session
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.model.reduction import from_dict, routing_prompt
from llava.model.report import flops

DEFAULT_TEMPLATE = "vicuna_v1"
"""Template of LLaVA-1.5 checkpoints, which don't say theirs."""


def load_session(arguments: ModelArguments, ranks: Ranks, words: Sequence[str] | None = None) -> Session:
    """Load the model onto this rank's device, ready to generate; `words` are those of `--reduction`."""
    device = choose_device(arguments.device, ranks.local)
    dtype = choose_dtype(arguments.dtype, device)
    model_id = get_model_name_from_path(arguments.model_path)
    tokenizer, model, image_processor, _ = load_pretrained_model(
        arguments.model_path,
        arguments.model_base,
        model_id,
        device=str(device),
        reduction=words,
        torch_dtype=dtype,
    )
    model.eval()
    own_template = trained_template(model.config, arguments.model_path) or DEFAULT_TEMPLATE
    reduction = model.config.reduction
    routing = routing_prompt(from_dict(reduction)) if reduction else None
    return Session(
        model=model,
        tokenizer=tokenizer,
        image_processor=image_processor,
        style=PromptStyle(
            template=conv_templates[own_template if arguments.conv_mode == "auto" else arguments.conv_mode],
            routing=cast("tuple[str, Placement] | None", routing),
            use_start_end=model.config.mm_use_im_start_end,
        ),
        flops=flops,
        model_id=model_id,
        device=device,
        dtype=dtype,
        reduction=reduction,
        label_mark=template_mark(own_template, arguments.conv_mode),
    )


def trained_template(config: Any, model_path: str) -> str | None:
    """Return the conversation template that training left in config.json; None where it left none."""
    name = config.to_dict().get("conversation_template")
    if name is not None and name not in conv_templates:
        raise ValueError(
            f"{model_path}/config.json: conversation_template {name!r} is unknown; "
            f"there are {', '.join(conv_templates)}"
        )
    return name


def choose_device(asked: str, local_rank: int) -> torch.device:
    """Return the device; `cuda` is this rank's GPU, `auto` the same or the CPU where there is none."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {asked}: this machine has no usable GPU; leave the flag out or pass cpu")
    try:
        return torch.device("cuda", local_rank) if asked == "cuda" else torch.device(asked)
    except RuntimeError as error:
        raise ValueError(f"--device {asked} is no device; expected auto, cuda, cuda:N or cpu") from error


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """Return the dtype asked for; `auto` is float16 on a GPU (as upstream) and float32 on a CPU."""
    if asked == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, asked)


def template_mark(own: str, asked: str) -> str:
    """Return what the protocol label says when the questions aren't asked as the checkpoint learned them."""
    is_own = asked == "auto" or conv_templates[asked] == conv_templates[own]
    return "" if is_own else f"+conv_{asked}"
