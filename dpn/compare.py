"""A checkpoint's configuration beside the one asked for: what differs, and what may."""

from dataclasses import fields, replace
from typing import Any

from dpn.config import DpnConfig

INFERENCE_FIELDS = ("eval_choice", "route", "router_bias", "mu")
"""What may differ from the checkpoint's when a trained model is loaded: it changes no weight's meaning."""


def changed_fields(saved: DpnConfig, asked: DpnConfig) -> list[str]:
    """List the fields in which two configurations differ, as "name=saved (now asked)"."""
    return [
        f"{field.name}={getattr(saved, field.name)} (now {getattr(asked, field.name)})"
        for field in fields(saved)
        if getattr(saved, field.name) != getattr(asked, field.name)
    ]


def with_inference_fields(saved: DpnConfig, asked: dict[str, Any]) -> DpnConfig:
    """Apply the fields given at load time to a trained configuration.

    Raises:
        ValueError: a field that training has fixed, with another value than the checkpoint's, or a router's
            choice where training has taught no router.
    """
    for name, value in asked.items():
        if name == "mu" and saved.objective != "value" and value != saved.mu:
            raise ValueError(
                f"mu={value} is a knob at inference for objective=value only; the checkpoint was trained "
                f"with objective={saved.objective}, whose routes move with router_bias"
            )
        if name not in INFERENCE_FIELDS and value != getattr(saved, name):
            raise ValueError(
                f"the checkpoint was trained with {name}={getattr(saved, name)}, so it can't run with "
                f"{name}={value}; only {', '.join(INFERENCE_FIELDS)} may change after training"
            )
    changed = replace(saved, **asked)
    if changed.eval_choice == "argmax" != saved.eval_choice and not _taught_a_router(saved):
        raise ValueError(
            f"eval_choice=argmax asks the router, but the checkpoint was trained with "
            f"train_choice={saved.train_choice}, which teaches it nothing; leave it at {saved.eval_choice}"
        )
    return changed


def _taught_a_router(config: DpnConfig) -> bool:
    """Whether a training with this configuration gives the routers something to learn from."""
    if config.train_choice == "static":
        return False
    learns_nothing = config.objective == "hinge" and not config.loss_weight and config.gate == "none"
    return not learns_nothing
