"""The projectors that leave fewer tokens, with options that make 4 tokens of the tiny tower's 16 features."""

from llava.model.reduction import PROJECTORS

OPTIONS = {name: {"num_queries": 4} if name == "resampler" else None for name in PROJECTORS}
NAMES = list(PROJECTORS)
WITH_GRID = [name for name in NAMES if name != "resampler"]


def asked(name, **options):
    """What `build_for_training` is asked for one of them."""
    return {"mm_projector_type": name, "mm_projector_options": options or OPTIONS.get(name)}
