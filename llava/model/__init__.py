"""LLaVA's model. `from llava.model import LlavaLlamaForCausalLM` works, and loads transformers only then."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.model.config import LlavaConfig
    from llava.model.llava_llama import LlavaLlamaForCausalLM

__all__ = ["LlavaConfig", "LlavaLlamaForCausalLM"]


def __getattr__(name: str) -> Any:
    if name == "LlavaLlamaForCausalLM":
        from llava.model.llava_llama import LlavaLlamaForCausalLM  # noqa: PLC0415 - only when asked for

        return LlavaLlamaForCausalLM
    if name == "LlavaConfig":
        from llava.model.config import LlavaConfig  # noqa: PLC0415 - only when asked for

        return LlavaConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
