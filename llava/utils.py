"""Upstream's `llava.utils`, as far as other code imports it."""


def disable_torch_init() -> None:
    """Do nothing; upstream's scripts call this before they load a checkpoint.

    Upstream saves time by turning `reset_parameters` of Linear and LayerNorm into no-ops for the whole
    process, which leaves every layer made later with uninitialised memory. transformers skips the initial
    values of weights that it loads anyway, so nothing is gained by it.
    """
