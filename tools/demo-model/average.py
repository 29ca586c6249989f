"""The weighted mean of checkpoints. `python average.py --out build/final/checkpoint.pt 0.3 build/run2/checkpoint.pt 0.7 build/run4/checkpoint.pt`

Runs that began with the same weights lie so near each other that their mean answers more questions than either (Wortsman and others, "Model soups",
2022). Which runs and weights: chosen by the questions of `development`, never by the held-out ones.
"""

import argparse
import pathlib

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("parts", nargs="+", help="a weight and a checkpoint, in turn; the weights add up to 1")
    args = parser.parse_args()
    weights = [float(weight) for weight in args.parts[::2]]
    if len(args.parts) % 2 or abs(sum(weights) - 1) > 1e-6:
        parser.error("needs pairs of a weight and a checkpoint whose weights add up to 1")
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in args.parts[1::2]]
    model = {name: sum(weight * state["model"][name] for weight, state in zip(weights, states)) for name in states[0]["model"]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "step": max(state["step"] for state in states)}, args.out)


if __name__ == "__main__":
    main()
