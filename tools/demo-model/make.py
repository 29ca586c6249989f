"""Everything from the grammar to the files of the model. `python make.py`

Runs the other scripts in order, in `build/`: about two hours on two cores, nearly all of it training. Interrupted, it goes on with the training where
that was. Afterwards `build/export/` holds the model in every type, and `cp build/export/rustorch-demo-Q8_0.gguf ../../crates/rustorch-cli/model/rustorch-demo.gguf`
puts it into the next build of the program. `evaluate.py` and `fixtures.py` need that program and are not run here. Standard library only.
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# The second part, for sums and spelling, whose answers the first mostly sees cut.
SUMS_CORPUS = "--dialogues 200000 --seed 20261123 --sums 0.35".split()
SUMS = "--whole-exact --steps 900 --learning-rate 1e-3 --warmup 20 --decay-share 0.9 --long-share 0.15 --noise 0.05 --seed 8 --evaluate-every 0".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the training")
    parser.add_argument("--shape", default="small")
    args = parser.parse_args()
    build = HERE / "build"
    corpus, tokenizer, first, second = build / "corpus.jsonl", build / "tokenizer.json", build / "run", build / "run-sums"

    def run(script, *arguments):
        print(f"\n{script} {' '.join(map(str, arguments))}", flush=True)
        subprocess.run([sys.executable, HERE / script, *map(str, arguments)], check=True)

    run("check.py")
    if not (first / "checkpoint.pt").exists():
        run("corpus.py", "--out", corpus)
        run("check.py", "--corpus", corpus)
        run("train_tokenizer.py", "--corpus", corpus, "--out", tokenizer)
    train = ("train.py", "--shape", args.shape, "--threads", args.threads, "--compile")
    run(*train, "--out", first)
    run("corpus.py", "--out", build / "sums.jsonl", *SUMS_CORPUS)
    run("check.py", "--corpus", build / "sums.jsonl")
    run(*train, "--corpus", build / "sums.jsonl", "--out", second, "--begin-with", first / "checkpoint.pt", *SUMS)
    run("export.py", "--shape", args.shape, "--run", second)
    run("verify.py", "--shape", args.shape, "--run", second)


if __name__ == "__main__":
    main()
