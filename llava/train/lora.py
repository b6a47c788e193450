"""LoRA training: adapters on the decoder's linear layers, saved in LLaVA's layout.

adapter_config.json, adapter_model.safetensors    PEFT's own: the low-rank matrices
non_lora_trainables.bin                           all else that learned: projector, reducer with its running
                                                  state, the routing token's embedding, chosen biases
config.json                                       the whole model's configuration
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from llava.model.quantization import KEPT_WHOLE
from llava.train.arguments import TrainingArguments
from llava.train.checkpoint import (
    NON_LORA_FILE,
    PartialWeights,
    gather_parameters,
    replace_file,
    restore,
)
from llava.train.routing_row import NAME, split_off
from llava.train.trainable import ADAPTER, LANGUAGE_MODEL, REDUCER, ROUTING_TOKEN, part_of

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER_FILE = "adapter_model.safetensors"
OUTSIDE = r".*\.(vision_tower|mm_projector|reducer)\..*"
"""What an adapter is kept away from by its path: the tower's layers have the decoder's names, e.g. q_proj."""

INT8_THRESHOLD = 6.0


def add_adapter(model: nn.Module, training: TrainingArguments) -> "PeftModel":
    """Put a LoRA adapter on every linear layer of the decoder; the model's own modules are changed.

    Where a router reads a token, the token's embedding becomes a parameter of its own, which learns.
    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - an extra

    config = LoraConfig(
        r=training.lora_r,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.lora_dropout,
        target_modules=target_names(model),
        exclude_modules=OUTSIDE,
        bias="none",  # biases are chosen by set_trainable: PEFT would let the tower's learn, too
        task_type="CAUSAL_LM",
    )
    is_float32 = training.deepspeed is None  # DeepSpeed wants one dtype and keeps float32 copies of its own
    index = getattr(model.config, "router_token_id", None)
    if index is not None:
        embedding: Any = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
        split_off(embedding, index, dtype=torch.float32 if is_float32 else None)
    return get_peft_model(model, config, autocast_adapter_dtype=is_float32)  # pyright: ignore[reportArgumentType, reportReturnType]


def target_names(model: nn.Module) -> list[str]:
    """Name the last parts of the decoder's linear layers: q_proj, up_proj and so on."""
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and part_of(f"{name}.weight") == LANGUAGE_MODEL
        }
    )


def save_adapter(model: Any, folder: Path, *, is_writer: bool) -> None:
    """Write what a LoRA directory holds. Every rank must call it; one writes."""
    tensors = gather_parameters(_saved(model))
    if not is_writer:
        return
    adapter = {name: tensor for name, tensor in tensors.items() if part_of(name) == ADAPTER}
    others = {_file_name(name): tensor for name, tensor in tensors.items() if name not in adapter}
    others = _with_row_in_place(others, model.config) | _running_state(model)
    model.save_pretrained(folder, state_dict=adapter, save_embedding_layers=False)
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # how the base was held in training; whoever loads chooses again
    config.save_pretrained(folder)
    replace_file(folder / NON_LORA_FILE, others)


def load_adapter(model: Any, folder: Path) -> None:
    """Put what `save_adapter` wrote into a model with the same adapter, to go on training.

    Raises:
        ValueError: the files belong to another model.
    """
    tensors = load_file(folder / ADAPTER_FILE)
    tensors |= torch.load(folder / NON_LORA_FILE, map_location="cpu", weights_only=True)
    state = {name: tensors.pop(name) for name in _running_state(model) if name in tensors}
    parameters = {_file_name(name): parameter for name, parameter in _saved(model)}
    row = next((name for name in parameters if part_of(name) == ROUTING_TOKEN), None)
    vocabulary = None if row is None else row.replace(f".{NAME}", ".weight")
    if row is not None and vocabulary in tensors:
        rows = tensors[vocabulary] if vocabulary in parameters else tensors.pop(vocabulary)
        tensors[row] = rows[-1] if len(rows) == 1 else rows[model.config.router_token_id]
    restore(parameters, tensors, folder)
    buffers = dict(model.named_buffers())
    for name, value in state.items():
        buffers[name].copy_(value)


def quantization(training: TrainingArguments, dtype: torch.dtype) -> dict[str, Any]:
    """Return the options of `from_pretrained` that quantise a frozen language model: none for 16 bits."""
    if training.bits == 16:
        return {}
    config = BitsAndBytesConfig(
        load_in_8bit=training.bits == 8,
        load_in_4bit=training.bits == 4,
        llm_int8_threshold=INT8_THRESHOLD,
        llm_int8_skip_modules=KEPT_WHOLE,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=training.double_quant,
        bnb_4bit_quant_type=training.quant_type,
    )
    return {"quantization_config": config, "device_map": {"": training.device}}


def _saved(model: Any) -> list[tuple[str, nn.Parameter]]:
    """List what a LoRA directory needs beside the base: what learned, and embeddings that stage 1 trained."""
    has_trained_rows = model.config.mm_use_im_start_end
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or (has_trained_rows and "embed_tokens." in name)
    ]


def _with_row_in_place(tensors: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Write the routing token's row (D,) as the vocabulary's last row (1, D), or into the whole (V, D).

    So it is stored as upstream stores new tokens, and whoever loads the file needs no word of `router_row`.
    """
    row = next((name for name in tensors if part_of(name) == ROUTING_TOKEN), None)
    if row is None:
        return tensors
    value, vocabulary = tensors[row], row.replace(f".{NAME}", ".weight")
    rest = {name: tensor for name, tensor in tensors.items() if name != row}
    if vocabulary not in rest:
        return {**rest, vocabulary: value[None]}
    whole = rest[vocabulary].to(value.dtype)
    whole[config.router_token_id] = value
    return {**rest, vocabulary: whole}


def _running_state(model: Any) -> dict[str, Tensor]:
    """Copy the buffers of the reducer's objective, e.g. mu, under the names that parameters have."""
    return {
        name: buffer.detach().cpu().clone()
        for name, buffer in model.named_buffers()
        if part_of(name) == REDUCER
    }


def _file_name(name: str) -> str:
    """Name a parameter without the levels that an attached adapter adds."""
    return name.replace(".default.", ".").replace(".base_layer.", ".")


ADAPTER_ONLY = PartialWeights(save_adapter, load_adapter)
"""LoRA training: a directory in LLaVA's layout."""
