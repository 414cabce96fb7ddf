"""Weights to a GGUF file for llama.cpp, and back again to train further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer

from pocket.chat_format import CONTROL, SPECIALS, TEMPLATE
from pocket.model import Pocket, Shape
from pocket.training import Weights

KIND = gguf.GGMLQuantizationType.Q8_0
PARTS = {
    "norm1": "attn_norm",
    "norm2": "ffn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.o": "attn_output",
    "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def tensor_name(parameter: str) -> str:
    """What llama.cpp calls a parameter of `Pocket`."""
    if parameter == "embed.weight":
        return "token_embd.weight"
    if parameter == "norm.weight":
        return "output_norm.weight"
    _, layer, rest = parameter.split(".", 2)
    return f"blk.{layer}.{PARTS[rest.removesuffix('.weight')]}.weight"


def write(weights: Weights, tokenizer: Tokenizer, target: Path) -> None:
    """Write a Q8_0 file; vectors stay in 32 bits."""
    writer = gguf.GGUFWriter(str(target), "qwen3")
    _describe(writer, Shape(vocabulary=tokenizer.get_vocab_size()), weights)
    _add_tokenizer(writer, json.loads(tokenizer.to_str())["model"])
    for name, value in weights.items():
        data = value.float().numpy()
        if data.ndim == 2:
            writer.add_tensor(tensor_name(name), quantize(data, KIND), raw_dtype=KIND)
        else:
            writer.add_tensor(tensor_name(name), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(source: Path) -> Weights:
    """The weights of a file that `write` wrote."""
    tensors = {t.name: t for t in gguf.GGUFReader(source).tensors}
    wanted = Pocket(Shape()).state_dict()
    found = {}
    for name, parameter in wanted.items():
        tensor = tensors[tensor_name(name)]
        data = torch.tensor(dequantize(tensor.data, tensor.tensor_type)).float()
        found[name] = data.reshape(parameter.shape)
    return found


def _describe(writer: gguf.GGUFWriter, shape: Shape, weights: Weights) -> None:
    writer.add_name("Pocket")
    about = "A tiny chat model trained from scratch on scripted dialogues, for demos and tests."
    writer.add_description(about)
    writer.add_size_label(f"{sum(t.numel() for t in weights.values()) / 1e6:.1f}M")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.rope_base)


def _add_tokenizer(writer: gguf.GGUFWriter, bpe: dict[str, Any]) -> None:
    tokens = [token for token, _ in sorted(bpe["vocab"].items(), key=lambda item: item[1])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([_token_type(token) for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _token_type(token: str) -> gguf.TokenType:
    if token in CONTROL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if token in SPECIALS else gguf.TokenType.NORMAL
