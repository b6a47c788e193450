"""What a user can decide about the Dynamic Pyramid Network.

`DpnConfig` covers its presets: `paper` is the authors' behaviour with the paper's loss weight, `policy`
trains the router by its consequences, `value` lets it predict them. All run the same code; a preset is a set
of defaults.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from dpn.method import POSITION_MODES, Kernel, ReducerConfig, check_places

CHOICES = {
    "preset": ("paper", "policy", "value"),
    "pooling": ("max", "avg"),
    "edge": ("ceil", "floor"),
    "position_mode": POSITION_MODES,
    "router_source": ("last", "token", "both"),
    "router_placement": ("first_turn", "every_turn"),
    "router": ("mlp", "linear"),
    "router_gradient": ("full", "stopped"),
    "train_choice": ("sample", "gumbel", "argmax", "random", "static"),
    "eval_choice": ("argmax", "random", "static"),
    "gate": ("none", "probability", "straight_through"),
    "hinge": ("expected", "chosen"),
    "hinge_scope": ("dpe", "all"),
    "objective": ("hinge", "policy", "value"),
    "credit": ("route", "later"),
}
READ_BY = {
    "budget": ("policy",),
    "mu": ("policy", "value"),
    "mu_step": ("policy",),
    "cost_warmup_steps": ("policy",),
    "credit": ("policy",),
    "entropy_weight": ("policy",),
    "uniform_share": ("policy", "value"),
    "exploration_steps": ("policy", "value"),
}
"""Fields that only some objectives read; with the others they must keep their default."""
NOT_NEGATIVE = (
    *("loss_weight", "mu", "entropy_weight", "min_tokens", "skip_below"),
    *("exploration_steps", "cost_warmup_steps"),
)


@dataclass(frozen=True, kw_only=True)
class DpnConfig(ReducerConfig):
    """Where DPE layers sit, what each may choose from, how the router decides and what trains it.

    The defaults are those of `preset=policy`; `DpnConfig.from_fields(preset="paper")` gives the paper's.
    """

    method: ClassVar[str] = "dpn"
    may_change: ClassVar[tuple[str, ...]] = ("eval_choice", "route", "router_bias", "mu")

    preset: str = "policy"
    """The name of the set of defaults this configuration started from."""
    layers: tuple[int, ...] = (8, 16, 24)
    """Decoder layers with a DPE in front of them, counted from 0 (paper 4.1, 5.2)."""
    kernels: tuple[Kernel, ...] = ((1, 1), (1, 2), (2, 2))
    """Rows x columns that each pooling expert merges into one token; (1, 1) keeps every token."""
    pooling: str = "max"
    """How an expert merges the tokens of a window: max (paper) or avg."""
    edge: str = "ceil"
    """Where a kernel doesn't divide the grid: ceil keeps a smaller last window, floor drops it (release)."""
    position_mode: str = "renumber"
    """Positions after pooling: renumber counts 0..n-1 in every stage, keep is the window's first token's."""
    router_source: str = "last"
    """What the router reads: the last prompt token, the learned routing token, or both states
    concatenated."""
    router_placement: str = "first_turn"
    """Where routing tokens are written: in the first human turn with an image, or in every human turn
    (release)."""
    temperature: float = 1.0
    """Divides the router's logits before the softmax."""
    router: str = "mlp"
    """LayerNorm, Linear, GELU, Linear (paper; release v1), or one linear map (release v2)."""
    router_gradient: str = "full"
    """Whether the router's loss reaches the state that it reads, too: full or stopped."""
    router_bias: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Added to the logits, one number per expert: the budget knob at inference."""
    train_choice: str = "sample"
    """How an expert is chosen while training."""
    eval_choice: str = "argmax"
    """How an expert is chosen at inference; static takes `route`, random draws uniformly."""
    route: tuple[Kernel, ...] = ()
    """The expert of every DPE for the choice static."""
    gate: str = "none"
    """What multiplies the chosen expert's output: nothing, its probability (Eq. 4), or 1 with p's
    gradient."""
    min_tokens: int = 0
    """While training, an expert that would leave fewer visual tokens than this is never drawn (release:
    18)."""
    skip_below: int = 0
    """Samples with fewer visual tokens than this are left alone (release: 16)."""
    hinge: str = "expected"
    """Rate in the routing loss: sum of p_i C_i (Eq. 6), or p C of the most probable expert (release)."""
    hinge_scope: str = "dpe"
    """Where the hinge sits: dpe takes it of every DPE's mean rate (Eq. 6), all of the mean over all DPEs
    (release)."""
    rates: tuple[float, ...] = (0.0, 1.0, 2.0)
    """C_i of Eq. 6, one per expert: log2 of the compression."""
    target: float = 1.5
    """t of Eq. 6: the mean rate below which the routing loss acts."""
    loss_weight: float = 0.0
    """lambda of Eq. 7: weight of the routing loss beside the language loss (paper: 0.01, LLaVA-HR 1.0)."""
    objective: str = "policy"
    """hinge: the routing loss alone (paper); policy: the router learns from the consequences of its routes;
    value: it predicts what each expert does to the answer loss."""
    mu: float = 1.0
    """Cost weight of policy and value: nats of answer loss that the whole dense visual cost is worth."""
    budget: float = 0.0
    """Share of the dense visual FLOPs that a dual step on mu holds; 0 keeps mu fixed."""
    mu_step: float = 0.02
    """Step size of the dual variable mu."""
    cost_warmup_steps: int = 0
    """Micro batches over which mu grows linearly from 0 to its value, so that the policy sees what pooling
    does to answers before it learns to save; the dual step waits for their end."""
    credit: str = "route"
    """Which cost the policy holds against a DPE: that of the whole route, or of what comes later only."""
    entropy_weight: float = 0.0
    """Weight of the policy's bonus on the entropy of the routing probabilities."""
    uniform_share: float = 0.0
    """Share of the choices that training draws uniformly instead of by the router (train_choice=sample)."""
    exploration_steps: int = 0
    """Micro batches over which entropy_weight and uniform_share fall linearly to 0; with 0 they stay."""
    router_lr_scale: float = 6.0
    """Learning rate of routers and value head relative to the model's (docs/results/toy/routing.md)."""

    @classmethod
    def from_fields(cls, **given: Any) -> Self:
        """Build from the preset's defaults and the fields given.

        Derived lengths follow the number of kernels.

        Raises:
            ValueError: unknown preset or field value, naming the field, the rule and the value.
        """
        preset = given.get("preset", "policy")
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        values = {**PRESETS[preset], **given}
        kernels = values.get("kernels", cls.kernels)
        if min((min(kernel) for kernel in kernels), default=0) > 0:  # else refused below, by name
            values.setdefault("rates", tuple(math.log2(h * w) for h, w in kernels))
        values.setdefault("router_bias", (0.0,) * len(kernels))
        return cls(**values)

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        check_places(self.layers)
        self._check_numbers()
        self._check_objective()
        self._check_experts()

    def _check_numbers(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
                raise ValueError(f"{field.name} must be finite, got {value}")
        for name in ("temperature", "mu_step", "router_lr_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.budget <= 1:
            raise ValueError(f"budget is a share of the dense FLOPs from 0 (off) to 1, got {self.budget}")
        if not 0 <= self.uniform_share < 1:
            raise ValueError(
                f"uniform_share is a share of the choices from 0 to below 1, got {self.uniform_share}"
            )

    def _check_objective(self) -> None:
        """Refuse fields that the objective would ignore, or that would take its meaning from it."""
        defaults = {field.name: field.default for field in fields(self)}
        for name, objectives in READ_BY.items():
            value = getattr(self, name)
            if value != defaults[name] and self.objective not in objectives:
                raise ValueError(
                    f"{name}={value} needs objective={' or '.join(objectives)}; objective={self.objective} "
                    f"would ignore it"
                )
        if self.exploration_steps and not (self.entropy_weight or self.uniform_share):
            raise ValueError(
                f"exploration_steps={self.exploration_steps} lets entropy_weight and uniform_share fall, "
                f"which are both 0; give one of them"
            )
        if self.uniform_share and self.train_choice != "sample":
            raise ValueError(
                f"uniform_share={self.uniform_share} needs train_choice=sample; "
                f"train_choice={self.train_choice} would ignore it"
            )
        if self.objective == "value" and (self.loss_weight or self.gate != "none"):
            raise ValueError(
                f"objective=value predicts losses, which neither the routing loss nor a gate may bend: it "
                f"needs loss_weight=0 and gate=none, got loss_weight={self.loss_weight}, gate={self.gate}"
            )

    def _check_experts(self) -> None:
        kernels = self.kernels
        if len(set(kernels)) != len(kernels) or len(kernels) < 2 or min(min(k) for k in kernels) < 1:
            raise ValueError(f"kernels must name two or more different sizes of at least 1x1, got {kernels}")
        for name in ("rates", "router_bias"):
            if len(getattr(self, name)) != len(kernels):
                raise ValueError(
                    f"{name} needs one number per kernel ({len(kernels)}), got {getattr(self, name)}"
                )
        unknown = [kernel for kernel in self.route if kernel not in kernels]
        if unknown or (self.route and len(self.route) != len(self.layers)):
            raise ValueError(
                f"route must name one of the kernels {format_route(kernels)} for each of the "
                f"{len(self.layers)} DPE "
                f"layers, got {format_route(self.route)}"
            )
        if ("static" in (self.train_choice, self.eval_choice)) != bool(self.route):
            raise ValueError(
                f"a route goes with train_choice=static or eval_choice=static, for example "
                f"eval_choice=static route=2x2,2x2,2x2; got route={format_route(self.route) or 'none'}, "
                f"train_choice={self.train_choice}, eval_choice={self.eval_choice}"
            )

    @property
    def places(self) -> tuple[int, ...]:
        """The DPE layers."""
        return self.layers

    @property
    def windows(self) -> tuple[Kernel, ...]:
        """The experts' kernels."""
        return self.kernels

    @property
    def static_choice(self) -> tuple[int, ...]:
        """Expert index of every DPE for the choice static."""
        return tuple(self.kernels.index(kernel) for kernel in self.route)


PRESETS: dict[str, dict[str, Any]] = {
    "policy": {},
    "paper": {
        "preset": "paper",
        "edge": "floor",
        "router_source": "token",
        "router_placement": "every_turn",
        "temperature": 10.0,
        "gate": "probability",
        "min_tokens": 18,
        "skip_below": 16,
        "hinge": "chosen",
        "hinge_scope": "all",
        "loss_weight": 0.01,
        "objective": "hinge",
        "router_lr_scale": 1.0,
    },
    "value": {
        "preset": "value",
        "objective": "value",
        "mu": 0.5,
        "temperature": 0.1,
        "uniform_share": 0.1,
    },
}


def format_route(route: tuple[Kernel, ...]) -> str:
    """Write kernels as on the command line: ((1, 2), (2, 2)) -> "1x2,2x2"."""
    return ",".join(f"{rows}x{columns}" for rows, columns in route)
