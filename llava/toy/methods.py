"""What can be compared on the small world: one row per method, as `python -m llava.toy.study` knows it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_LAYERS = "layers=2,4,6"
"""Where DPEs stand in the small world's 8 decoder layers, a quarter of the depth apart as in the paper."""
_MU_AT_INFERENCE = ("0.02", "0.05", "0.1", "0.2", "0.5", "1", "2")


@dataclass(frozen=True, kw_only=True)
class Method:
    """How one method is trained, and how its checkpoint is run."""

    reduction: str = ""
    """Of `--reduction` in training: METHOD FIELD=VALUE ..., where no METHOD is dpn; "" is no reduction."""
    ablation: str = ""
    """In place of `reduction`: a row of the paper's tables, scripts/ablations/NAME.env."""
    projector: str = ""
    """Of `--mm_projector_type`, with a stage 1 of its own; "" is LLaVA's."""
    options: str = ""
    """Of `--mm_projector_options`."""
    points: Mapping[str, str] = field(default_factory=dict)
    """What is evaluated: name -> words of `--reduction` at inference, "" for what the checkpoint says. Empty:
    one point, as it was trained."""

    def training_words(self) -> tuple[str, ...]:
        """Complete `reduction` to the words of the flag: ("dpn", "layers=2,4,6", ...); () for none."""
        return reduction_words(self.reduction)

    def to_dict(self) -> dict[str, Any]:
        """Give what the training depends on, JSON-ready."""
        return {name: value for name, value in asdict(self).items() if name != "points"}


def reduction_words(text: str) -> tuple[str, ...]:
    """Complete METHOD FIELD=VALUE ... to the words of `--reduction`.

    >>> reduction_words("mu=1"), reduction_words("fastv layer=1"), reduction_words("")
    (('dpn', 'layers=2,4,6', 'mu=1'), ('fastv', 'layer=1'), ())
    """
    given = text.split()
    if not given or "=" not in given[0]:
        return tuple(given)
    has_layers = any(word.startswith("layers=") for word in given)
    return ("dpn", *(() if has_layers else (_LAYERS,)), *given)


def own_method(name: str, text: str) -> Method:
    """Build a method from a user's words; a router that predicts values serves several cost weights."""
    words = text.split()
    if "preset=value" not in words and "objective=value" not in words:
        return Method(reduction=text)
    return Method(reduction=text, points={f"{name}@{mu}": f"dpn mu={mu}" for mu in _MU_AT_INFERENCE})


_ON_DENSE = {
    "dense": "",
    "fastv-r0.5": "fastv layer=1 ratio=0.5",
    "fastv-r0.6": "fastv layer=1 ratio=0.6",
    "fastv-late": "fastv layer=2 ratio=0.5",
    "pyramid-drop-free": f"pyramid_drop {_LAYERS}",
    "random-drop-free": f"random {_LAYERS}",
    "truncate-free": "truncate layer=4",
    "prumerge_plus": "prumerge_plus",
    "visionzip": "visionzip dominant=0.21 contextual=0.04",
    "downsample-free": "downsample side=64",
}
"""Without training, on plain LLaVA's weights. FastV's paper has K=3 of 32 layers, which is layer 1 of 8;
VisionZip leaves a quarter of the tokens, as many as the projectors."""
_FAST = "router_lr_scale=25"
_ROUTERS = {
    "policy-slow": "mu=1",
    "paper-weight1": "preset=paper min_tokens=2 skip_below=2 loss_weight=1",
    "straight-through": "objective=hinge gate=straight_through loss_weight=0.01",
    "gumbel": "objective=hinge gate=straight_through train_choice=gumbel loss_weight=0.01",
} | {
    name: f"{words} {_FAST}"
    for name, words in {
        "policy": "mu=1",
        "policy-warm@0.5": "mu=0.5 cost_warmup_steps=100",
        "policy-warm@1": "mu=1 cost_warmup_steps=100",
        "policy-warm@2": "mu=2 cost_warmup_steps=100",
        "policy@0.5": "mu=0.5",
        "policy@2": "mu=2",
        "policy-budget": "mu=0.5 budget=0.4",
        "policy-later": "mu=1 cost_warmup_steps=100 credit=later",
        "policy-entropy": "mu=1 cost_warmup_steps=100 entropy_weight=0.02 exploration_steps=100",
        "policy-uniform": "mu=1 cost_warmup_steps=100 uniform_share=0.2 exploration_steps=100",
        "policy-token": "mu=1 cost_warmup_steps=100 router_source=token",
        "policy-both": "mu=1 cost_warmup_steps=100 router_source=both",
        "value": "preset=value",
        "value-explore": "preset=value uniform_share=0.5 exploration_steps=150",
        "value-both": "preset=value router_source=both",
    }.items()
}
"""Ways of training a router (the limits of `paper` are scaled to 64 visual tokens). `policy` and the fast
rate are those of scripts/presets/toy.env; the first four have the default's rate. What stands behind @ is the
value that tells the points of one curve apart."""
_ABLATIONS = {"paper": "dpn"} | {
    name: name
    for name in ("static-2x1", "static-1x2", "static-2x2", "random", "dynamic-2x2-4x4", "early", "no-loss")
}
_PROJECTORS = {
    "average_pool": "",
    "pixel_shuffle": "",
    "token_packer": "",
    "ldp_v2": "",
    "resampler": "num_queries=16",
    "c_abstractor": "",
}
"""Their options; each leaves 16 of 64 tokens, as 144 of 576."""
_RIVALS = {
    "static-late": "static layers=4,5,6",
    "pyramid_drop": f"pyramid_drop {_LAYERS}",
    "random-drop": f"random {_LAYERS}",
    "truncate": "truncate layer=4",
    "truncate@3": "truncate layer=3",
    "truncate@2": "truncate layer=2",
    "downsample": "downsample side=64",
}
"""Rivals that are trained with what they leave out; truncation behind layer 3 costs what `policy` does."""

METHODS: dict[str, Method] = {
    "dense": Method(points=_ON_DENSE),
    **{name: Method(ablation=ablation) for name, ablation in _ABLATIONS.items()},
    **{name: own_method(name, words) for name, words in _ROUTERS.items()},
    **{name: Method(reduction=words) for name, words in _RIVALS.items()},
    **{name: Method(projector=name, options=options) for name, options in _PROJECTORS.items()},
}
"""By the name that the command line knows."""
