"""The trained model in every format that the program reads, with logits of the reference library. `cargo xtask fixtures` calls it.

    python fixtures.py --run build/run --tokenizer build/tokenizer.json --out ../../fixtures/demo

Each folder of OUT holds one model (`model`, or `model.gguf`), `ref.json` and `logits.npy`: transformers in float32 on the weights as that
format holds them, dequantized by the software whose format it is (gguf-py, MLX). Formats that need many bytes hold the first layer only:
reading is what they are for. Needs mlx, optimum-onnx and onnxruntime beside requirements.txt (made with 0.32.4, 0.1.0 and 1.32.0).
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import tempfile

import gguf
import mlx.core as mx
import numpy as np
import onnx
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from optimum.exporters.onnx import main_export
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from export import FILES, write_gguf, write_hugging_face
from model import SHAPES

HERE = pathlib.Path(__file__).resolve().parent
MESSAGES = [{"role": "user", "content": "How do I save this conversation? 会話を保存するには?"}]
N_ROWS = 4  # of logits that are kept: the last ones
N_GREEDY = 24
MLX_GROUP = 64


def cut(weights, shape, n_layers):
    """The model without its upper layers."""
    kept = {name: w for name, w in weights.items() if not name.startswith("layers.") or int(name.split(".")[1]) < n_layers}
    return kept, dataclasses.replace(shape, n_layers=n_layers)


def half(weights):
    return {name: w.to(torch.float16).to(torch.float32) if w.dim() > 1 else w for name, w in weights.items()}


def all_half(weights):
    return {name: w.to(torch.float16).to(torch.float32) for name, w in weights.items()}


def dequantized_by_gguf(weights, kind):
    matrix, embedding, _ = FILES[kind]

    def through(name, w):
        if w.dim() == 1:
            return w
        quantized = embedding if name == "embed_tokens.weight" else matrix
        return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(w.numpy(), quantized), quantized).copy())

    return {name: through(name, w) for name, w in weights.items()}


def quantized_by_mlx(weights, bits):
    """Tensors of the file, and what they stand for, multiplied out in float32."""
    stored, values = {}, {}
    for name, w in weights.items():
        array = mx.array(w.numpy()).astype(mx.float16)
        if w.dim() == 1:
            stored[f"model.{name}"], values[name] = array, w.to(torch.float16).to(torch.float32)
            continue
        levels, scales, biases = mx.quantize(array, group_size=MLX_GROUP, bits=bits)
        stem = f"model.{name.removesuffix('.weight')}"
        stored |= {f"{stem}.weight": levels, f"{stem}.scales": scales, f"{stem}.biases": biases}
        wide = [a.astype(mx.float32) for a in (scales, biases)]
        values[name] = torch.from_numpy(np.array(mx.dequantize(levels, *wide, group_size=MLX_GROUP, bits=bits)).copy())
    return stored, values


def reference(folder, config, weights, ids, facts):
    """Logits of transformers, and a greedy continuation."""
    model = Qwen3ForCausalLM(Qwen3Config(**config, attn_implementation="eager")).to(torch.float32).eval()
    missing = model.load_state_dict({f"model.{name}": w for name, w in weights.items()}, strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"]) and not missing.unexpected_keys, missing
    model.tie_weights()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()
        sequence, gaps = list(ids), []
        for _ in range(N_GREEDY):
            best = model(torch.tensor([sequence])).logits[0, -1].topk(2)
            sequence.append(best.indices[0].item())
            gaps.append((best.values[0] - best.values[1]).item())
    np.save(folder / "logits.npy", logits[-N_ROWS:].numpy().astype("<f4"))
    facts = facts | {"ids": ids, "n_layers": config["num_hidden_layers"], "logits_std": logits.std().item(), "nll": nll, "greedy": sequence[len(ids) :], "greedy_min_gap": min(gaps)}
    (folder / "ref.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


class Maker:
    def __init__(self, args):
        self.shape = SHAPES[args.shape]
        self.out, self.context_length = args.out, args.context_length
        self.weights = torch.load(args.run / "checkpoint.pt", map_location="cpu", weights_only=True)["model"]
        self.text = json.dumps(json.loads(args.tokenizer.read_text(encoding="utf-8")), ensure_ascii=False, separators=(",", ":"))
        self.tokenizer = Tokenizer.from_file(str(args.tokenizer))
        self.scratch = pathlib.Path(tempfile.mkdtemp())
        self.hugging_face(self.scratch / "hf", self.weights, self.shape)
        chat = AutoTokenizer.from_pretrained(self.scratch / "hf")
        self.ids = chat(chat.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False))["input_ids"]

    def hugging_face(self, folder, weights, shape):
        write_hugging_face(folder, weights, shape, self.tokenizer, self.text, self.context_length)
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def folder(self, name):
        folder = self.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def finish(self, folder, model, weights, shape, is_quantized=False):
        config = self.hugging_face(self.scratch / "config", weights, shape)
        reference(folder, config, weights, self.ids, {"model": model, "is_quantized": is_quantized})
        print(folder.name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()), "bytes", flush=True)

    def gguf(self, kind, n_layers):
        folder = self.folder(f"gguf-{kind.lower()}")
        weights, shape = cut(self.weights, self.shape, n_layers)
        write_gguf(folder / "model.gguf", kind, weights, shape, json.loads(self.text), self.context_length)
        values = {"F32": dict, "F16": half}.get(kind, lambda w: dequantized_by_gguf(w, kind))(weights)
        self.finish(folder, "model.gguf", values, shape, kind.startswith("Q"))

    def safetensors(self):
        folder = self.folder("hf")
        weights, shape = cut(self.weights, self.shape, 1)
        self.hugging_face(folder / "model", weights, shape)
        save_file({f"model.{name}": w.to(torch.float16).contiguous() for name, w in weights.items()}, folder / "model/model.safetensors", metadata={"format": "pt"})
        self.finish(folder, "model", all_half(weights), shape)

    def pytorch(self):
        folder = self.folder("pytorch")
        weights, shape = cut(self.weights, self.shape, 1)
        self.hugging_face(folder / "model", weights, shape)
        (folder / "model/model.safetensors").unlink()
        torch.save({f"model.{name}": w.to(torch.float16) for name, w in weights.items()}, folder / "model/pytorch_model.bin")
        self.finish(folder, "model", all_half(weights), shape)

    def mlx(self, bits, n_layers):
        folder = self.folder("mlx-f16" if bits is None else f"mlx-{bits}bit")
        weights, shape = cut(self.weights, self.shape, n_layers)
        config = self.hugging_face(folder / "model", weights, shape)
        (folder / "model/model.safetensors").unlink()
        if bits is None:
            stored = {f"model.{name}": mx.array(w.numpy()).astype(mx.float16) for name, w in weights.items()}
            values = all_half(weights)
        else:
            stored, values = quantized_by_mlx(weights, bits)
            config["quantization"] = config["quantization_config"] = {"group_size": MLX_GROUP, "bits": bits, "mode": "affine"}
        mx.save_safetensors(str(folder / "model/model.safetensors"), stored, metadata={"format": "mlx"})
        (folder / "model/config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        self.finish(folder, "model", values, shape, bits is not None)

    def onnx(self):
        folder = self.folder("onnx")
        weights, shape = cut(self.weights, self.shape, 1)
        source, made = self.scratch / "source", self.scratch / "onnx"
        self.hugging_face(source, weights, shape)
        main_export(str(source), output=str(made), task="text-generation-with-past", framework="pt", do_validation=False)
        model = OnnxModel(convert_float_to_float16(onnx.load(made / "model.onnx"), keep_io_types=True))
        model.topological_sort()  # The conversion leaves its casts at the end, which the format forbids.
        (folder / "model").mkdir()
        onnx.save(model.model, folder / "model/model.onnx")
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / name, folder / "model" / name)
        self.finish(folder, "model", all_half(weights), shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, default=HERE / "build" / "run")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=HERE / "build" / "tokenizer.json")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--shape", default="small")
    parser.add_argument("--context-length", type=int, default=1024)
    args = parser.parse_args()
    torch.set_num_threads(1)
    maker = Maker(args)
    all_layers = maker.shape.n_layers
    for kind, n_layers in (("F32", 1), ("F16", 1), ("Q8_0", 1), ("Q4_0", all_layers)):
        maker.gguf(kind, n_layers)
    maker.safetensors()
    maker.pytorch()
    for bits, n_layers in ((None, 1), (8, 1), (4, 1)):
        maker.mlx(bits, n_layers)
    maker.onnx()
    shutil.rmtree(maker.scratch)


if __name__ == "__main__":
    main()
