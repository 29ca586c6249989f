"""Whether the exported folder is the model that was trained: logits of transformers against ours. `python verify.py --shape small`"""

import argparse
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model import SHAPES, Decoder

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, default=HERE / "build" / "run")
    parser.add_argument("--folder", type=pathlib.Path, default=HERE / "build" / "export" / "hf")
    parser.add_argument("--shape", default="small")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    theirs = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32, attn_implementation="eager").eval()
    ours = Decoder(SHAPES[args.shape], len(tokenizer))
    ours.load_state_dict(torch.load(args.run / "checkpoint.pt", map_location="cpu", weights_only=True)["model"])
    text = tokenizer.apply_chat_template([{"role": "user", "content": "How do I save? 保存するには?"}], add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        difference = (theirs(ids).logits - ours.logits(ours.hidden(ids))).abs().max().item()
    print(f"{ids.shape[1]} tokens, largest difference of a logit {difference:.2e}")
    raise SystemExit(difference > 1e-4)


if __name__ == "__main__":
    main()
