"""What `--reduction` asks for, held against the base: what would be ignored or left untrained is refused."""

import logging

from llava.model.config import read_config
from llava.model.reduction import MethodConfig, from_dict, routing_prompt
from llava.train.arguments import Arguments

logger = logging.getLogger(__name__)


def check_reduction(arguments: Arguments, reduction: MethodConfig | None) -> None:
    """Check the flag against the base's config.json, and say when the base's own reduction goes on.

    Args:
        arguments: of the run.
        reduction: what `--reduction` says; None where it says `none`, and where it is left out.

    Raises:
        ValueError: `none` for a base that was trained with a reduction, or a new routing token that nothing
            would train.
    """
    model, _, training = arguments
    path = str(model.model_name_or_path)
    saved = read_config(path, cache_dir=training.cache_dir).reduction
    if saved is None:
        _require_trained_token(arguments, reduction)
        return
    if model.reduction and reduction is None:
        raise ValueError(
            f"--reduction none: {path} was trained with a reduction, and training can't take it out; leave "
            "--reduction out to go on with the checkpoint's own, or start from the model it was trained from"
        )
    if reduction is None:
        kept = from_dict(saved)
        logger.info("no --reduction given: %s goes on with its own, %s", path, kept)


def _require_trained_token(arguments: Arguments, reduction: MethodConfig | None) -> None:
    """Refuse a frozen vocabulary under routers that read a token which the base doesn't know."""
    model, _, training = arguments
    prompt = routing_prompt(reduction)
    if prompt is None or not model.freeze_backbone or training.lora_enable:
        return
    raise ValueError(
        f"--freeze_backbone True freezes the embedding of {prompt[0]}, which the routers of this --reduction "
        "read: it is new and would never learn; use --lora_enable True (which trains that row), routers that "
        "read no token (preset=policy or preset=value), or --freeze_backbone False"
    )
