"""Converts a model with this program and has llama.cpp load the result: same tokens, same greedy answer.

For people, not for CI. Needs the Python packages llama-cpp-python and numpy.
Usage: check_converted.py PROGRAM MODEL [TYPE ...] (MODEL: a Hugging Face folder or a GGUF file; TYPE "-": as it is)
"""
import json
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy

TEXTS = ["Once upon a time", "Hello, world! It's 2024.", "  two  blanks\n\tand a tab", "日本 ünïcode 🦀"]
N_TOKENS = 32


def run(program, *arguments, stdin=None):
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{arguments}: exit {done.returncode}\n{done.stderr.decode()}")
    return done.stdout


def logits(program, model, ids, folder):
    out = os.path.join(folder, "logits.npy")
    run(program, "logits", "--model", model, "--tokens", ",".join(map(str, ids)), "--precision", "f32", "--last",
        "--out", out)
    return numpy.load(out)[0]


def check(program, source, kind, folder):
    target = os.path.join(folder, f"{kind.strip('-') or 'kept'}.gguf")
    run(program, "convert", source, target, *([] if kind == "-" else ["--type", kind]))
    llama = llama_cpp.Llama(target, n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    for text in TEXTS:
        ours = json.loads(run(program, "tokenize", "--model", target, stdin=text.encode()))
        theirs = llama.tokenize(text.encode(), add_bos=True, special=False)
        if ours != theirs:
            sys.exit(f"{kind}: {text!r}: {ours} here, {theirs} there")
    ids = json.loads(run(program, "tokenize", "--model", target, stdin=TEXTS[0].encode()))
    same, worst = 0, 0.0
    for _ in range(N_TOKENS):
        llama.reset()
        llama.eval(ids)
        theirs = numpy.array(llama.scores[len(ids) - 1])
        ours = logits(program, target, ids, folder)
        worst = max(worst, float(abs(ours - theirs).max()))
        best = int(ours.argmax())
        gap = float(numpy.sort(ours)[-1] - numpy.sort(ours)[-2])
        if best == int(theirs.argmax()):
            same += 1
        elif gap > 2 * abs(ours - theirs).max():
            sys.exit(f"{kind}: token {len(ids)}: {best} here, {int(theirs.argmax())} there, gap {gap}")
        ids.append(best)
    answer = llama.detokenize(ids).decode(errors="replace")
    print(f"{kind:8} {os.path.getsize(target):9} bytes, {same} of {N_TOKENS} greedy tokens the same, "
          f"logits differ by {worst:.1e}: {answer[:60]!r}", flush=True)


def main():
    program, source, *kinds = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds or ["-", "F16", "Q8_0", "Q4_K_M"]:
            check(os.path.abspath(program), os.path.abspath(source), kind, folder)


if __name__ == "__main__":
    main()
