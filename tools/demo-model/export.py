"""The trained model as GGUF (F32, F16, Q8_0, Q4_0) and as a Hugging Face folder. `python export.py --run build/run --shape small --out build/export`

Q8_0 and Q4_0 hold the matrices; norms stay F32, and Q4_0 keeps the embeddings, which are also the output matrix, in Q8_0.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import NORM_EPS, ROPE_THETA, SHAPES
from train_tokenizer import CHAT_TEMPLATE, END, END_OF_TEXT, SPECIAL

HERE = pathlib.Path(__file__).resolve().parent
NAME = "rustorch-demo"
DESCRIPTION = "The demo model of rustorch-cli: answers questions about its commands and options, in English and Japanese. See MODEL_CARD.md."
LICENCE = "MIT OR Apache-2.0"
# Hugging Face name inside a layer -> GGUF name.
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
Q = gguf.GGMLQuantizationType
# File -> (type of the matrices, type of the embeddings, file type).
FILES = {
    "F32": (Q.F32, Q.F32, gguf.LlamaFileType.ALL_F32), "F16": (Q.F16, Q.F16, gguf.LlamaFileType.MOSTLY_F16),
    "Q8_0": (Q.Q8_0, Q.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0), "Q4_0": (Q.Q4_0, Q.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


def gguf_name(name):
    if name == "embed_tokens.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, number, rest = name.split(".", 2)
    return f"blk.{number}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def write_gguf(path, kind, weights, shape, tokenizer_json, context_length):
    matrix, embedding, file_type = FILES[kind]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_license(LICENCE)
    writer.add_languages(["en", "ja"])
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(shape.n_layers)
    writer.add_context_length(context_length)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ff_width)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_rope_freq_base(ROPE_THETA)
    vocabulary = tokenizer_json["model"]["vocab"]
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer_json["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(vocabulary[END])
    writer.add_pad_token_id(vocabulary[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    writer.add_sampling_temp(0.0)  # a model that recites: the most probable token
    for name, tensor in weights.items():
        values = tensor.numpy().astype(np.float32)
        quantized = Q.F32 if values.ndim == 1 else embedding if name == "embed_tokens.weight" else matrix
        if quantized in (Q.F32, Q.F16):
            writer.add_tensor(gguf_name(name), values.astype(np.float16 if quantized == Q.F16 else np.float32))
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_hugging_face(folder, weights, shape, tokenizer, tokenizer_text, context_length):
    folder.mkdir(parents=True, exist_ok=True)
    end, end_of_text = tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": shape.width, "intermediate_size": shape.ff_width,
        "num_hidden_layers": shape.n_layers, "num_attention_heads": shape.n_heads, "num_key_value_heads": shape.n_kv_heads, "head_dim": shape.head_dim,
        "hidden_act": "silu", "rms_norm_eps": NORM_EPS, "rope_theta": ROPE_THETA, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
        "use_sliding_window": False, "sliding_window": None, "max_window_layers": shape.n_layers, "max_position_embeddings": context_length,
        "tie_word_embeddings": True, "vocab_size": tokenizer.get_vocab_size(), "bos_token_id": None, "eos_token_id": end, "pad_token_id": end_of_text,
        "initializer_range": 0.02, "torch_dtype": "float32", "use_cache": True,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": END, "pad_token": END_OF_TEXT, "add_bos_token": False,
        "clean_up_tokenization_spaces": False, "model_max_length": context_length, "chat_template": CHAT_TEMPLATE,
    }
    generation = {"eos_token_id": end, "pad_token_id": end_of_text, "do_sample": False}
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer_config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_text, encoding="utf-8")
    save_file({f"model.{name}": tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, default=HERE / "build" / "run")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=HERE / "build" / "tokenizer.json")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "build" / "export")
    parser.add_argument("--shape", default="small")
    parser.add_argument("--context-length", type=int, default=1024, help="the longest rows of the training")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    state = torch.load(args.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    weights, text = state["model"], args.tokenizer.read_text(encoding="utf-8")
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in FILES:
        path = args.out / f"{NAME}-{kind}.gguf"
        write_gguf(path, kind, weights, shape, json.loads(text), args.context_length)
        print(path, path.stat().st_size, "bytes")
    folder = args.out / "hf"
    write_hugging_face(folder, weights, shape, Tokenizer.from_file(str(args.tokenizer)), text, args.context_length)
    print(folder, (folder / "model.safetensors").stat().st_size, "bytes, step", state["step"])


if __name__ == "__main__":
    main()
