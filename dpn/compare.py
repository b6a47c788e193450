"""A checkpoint's configuration beside the one asked for: what differs, and what may."""

from dataclasses import fields, replace
from typing import Any, cast

from dpn.config import DpnConfig
from dpn.method import MethodConfig


def changed_fields(saved: MethodConfig, asked: MethodConfig) -> list[str]:
    """List the fields in which two configurations differ, as "name=saved (now asked)"."""
    if type(saved) is not type(asked):
        return [f"method={saved.method} (now {asked.method})"]
    return [
        f"{field.name}={getattr(saved, field.name)} (now {getattr(asked, field.name)})"
        for field in fields(cast(Any, saved))
        if getattr(saved, field.name) != getattr(asked, field.name)
    ]


def require_same_method(saved: MethodConfig, method: str) -> None:
    """Refuse another method than the one that a checkpoint was trained with."""
    if method != saved.method:
        raise ValueError(
            f"the checkpoint was trained with --reduction {saved.method}, so it can't run with --reduction "
            f"{method}; leave the flag out, or give a plain LLaVA checkpoint"
        )


def with_inference_fields(saved: MethodConfig, asked: dict[str, Any]) -> MethodConfig:
    """Apply the fields given at load time to a trained configuration.

    Raises:
        ValueError: a field that training has fixed, with another value than the checkpoint's, or a router's
            choice where training has taught no router.
    """
    for name, value in asked.items():
        if name == "mu" and isinstance(saved, DpnConfig) and saved.objective != "value" and value != saved.mu:
            raise ValueError(
                f"mu={value} is a knob at inference for objective=value only; the checkpoint was trained "
                f"with objective={saved.objective}, whose routes move with router_bias"
            )
        if name not in saved.may_change and value != getattr(saved, name):
            free = f"only {', '.join(saved.may_change)}" if saved.may_change else "no field"
            raise ValueError(
                f"the checkpoint was trained with {name}={getattr(saved, name)}, so it can't run with "
                f"{name}={value}; {free} may change after training"
            )
    is_routed_anew = asked.get("eval_choice", "static") != "static"
    if isinstance(saved, DpnConfig) and saved.train_choice != "static" and is_routed_anew:
        asked = {"route": (), **asked}  # a saved route belongs to the choice that is changed
    changed = replace(cast(Any, saved), **asked)
    if isinstance(saved, DpnConfig):
        _require_taught(saved, changed)
    return changed


def _require_taught(saved: DpnConfig, changed: DpnConfig) -> None:
    """Refuse to ask routers that training has taught nothing."""
    if changed.eval_choice == "argmax" != saved.eval_choice and not _taught_a_router(saved):
        raise ValueError(
            f"eval_choice=argmax asks the router, but the checkpoint was trained with "
            f"train_choice={saved.train_choice}, which teaches it nothing; leave it at {saved.eval_choice}"
        )


def _taught_a_router(config: DpnConfig) -> bool:
    """Whether a training with this configuration gives the routers something to learn from."""
    if config.train_choice == "static" or (config.train_choice, config.objective) == ("random", "policy"):
        return False
    learns_nothing = config.objective == "hinge" and not config.loss_weight and config.gate == "none"
    return not learns_nothing
