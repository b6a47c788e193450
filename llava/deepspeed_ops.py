"""DeepSpeed's ops where there is no GPU."""


def leave_out_inference_op() -> None:
    """Tell DeepSpeed that its shared-memory op isn't to be had, before ranks on CPUs are connected.

    It serves inference only. DeepSpeed would compile it for half a minute when it connects the ranks, or wait
    without end for the lock of a start that was killed while it compiled. There is no switch for it: the
    table that is edited here is what DeepSpeed asks, and keeps so that edits persist
    (deepspeed/ops/__init__.py).
    """
    import deepspeed  # noqa: PLC0415 - an extra

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
