"""Training on the CPU. `python train.py --shape small --threads 2 --minutes 110`

Stopped by Ctrl-C, by --minutes or by the machine, it goes on from `build/run/checkpoint.pt` when it is started again with the same options. Each
step is a function of the seed and its number, so that an interrupted run ends with the same weights as an uninterrupted one (same machine and
thread count). Writes loss.csv: step, tokens, seconds, learning rate, loss, and the share of right answers to the questions of `development` where it was measured.
"""

import argparse
import csv
import os
import pathlib
import time

HERE = pathlib.Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--corpus", type=pathlib.Path, default=HERE / "build" / "corpus.jsonl")
    add("--tokenizer", type=pathlib.Path, default=HERE / "build" / "tokenizer.json")
    add("--out", type=pathlib.Path, default=HERE / "build" / "run")
    add("--shape", default="small")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=1)
    add("--minutes", type=float, default=0, help="stop after this time (0: no limit); start again to go on")
    add("--steps", type=int, default=8000)
    add("--row-tokens", type=int, default=256)
    add("--rows", type=int, default=12, help="rows of a step")
    add("--long-share", type=float, default=0.1, help="share of the steps, at the end, of which every other has rows four times as long with joined dialogues")
    add("--learning-rate", type=float, default=2e-3)
    add("--weight-decay", type=float, default=0.1)
    add("--warmup", type=int, default=100, help="steps in which the learning rate rises")
    add("--decay-share", type=float, default=0.4, help="share of the steps, at the end, in which it falls")
    add("--cut-share", type=float, default=0.85, help="share of the dialogues whose last answer is cut short, except in the long rows")
    add("--chain-share", type=float, default=0.2, help="share of the dialogues of several turns that the short rows take")
    add("--whole-exact", action="store_true", help="never cut the answers to sums and the like, where what counts is at the end")
    add("--question-loss", type=float, default=0.1, help="weight of the tokens of questions; answers have 1")
    add("--noise", type=float, default=0.07, help="share of the tokens of questions that are replaced by any token, so that unknown words do no harm")
    add("--seed", type=int, default=7)
    add("--begin-with", type=pathlib.Path, help="checkpoint of another run whose weights are the first ones (default: random)")
    add("--compile", action="store_true", help="let torch.compile fuse the operations of the layers: a fifth less time, needs a C++ compiler")
    add("--evaluate-every", type=int, default=1000, help="steps (0: never)")
    add("--checkpoint-every", type=int, default=100)
    return parser.parse_args()


ARGS = arguments()
os.environ.setdefault("OMP_NUM_THREADS", str(ARGS.threads))

import numpy as np  # noqa: E402  (after the thread count)
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import data  # noqa: E402
import questions  # noqa: E402
from model import SHAPES, Decoder  # noqa: E402
from train_tokenizer import END  # noqa: E402


class Batches:
    """Step -> tensors, from the seed and the number alone."""

    def __init__(self, packed, n_rows, noise, seed, n_vocab):
        self.packed, self.n_rows, self.noise, self.seed, self.n_vocab = packed, n_rows, noise, seed, n_vocab
        self.total = packed.shape[1]
        if self.total < n_rows:
            raise SystemExit(f"the corpus fills {self.total} rows, a step needs {n_rows}")
        self.per_epoch = self.total // n_rows
        self.epoch, self.order = -1, None

    def get(self, step, device):
        epoch, at = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.total)
        chosen = np.sort(self.order[at * self.n_rows : (at + 1) * self.n_rows])
        ids, kinds, documents = (torch.from_numpy(self.packed[layer][chosen].astype(np.int64)).to(device) for layer in range(3))
        targets = ids[:, 1:]
        same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] > 0)
        weights = torch.where(kinds[:, 1:] == data.ANSWER, 1.0, torch.where(kinds[:, 1:] > 0, ARGS.question_loss, 0.0)) * same
        inputs = ids[:, :-1]
        rng = np.random.default_rng([self.seed, 1, step])
        spoil = torch.from_numpy(rng.random(inputs.shape) < self.noise).to(device) & (kinds[:, :-1] == data.QUESTION) & (inputs > 2)
        inputs = torch.where(spoil, torch.from_numpy(rng.integers(3, self.n_vocab, inputs.shape)).to(device), inputs)
        length = inputs.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        mask = causal & (documents[:, :-1, None] == documents[:, None, :-1])
        return inputs, targets, weights, mask[:, None]


class Muon:
    """Momentum whose update is made nearly orthogonal by a Newton-Schulz iteration (Jordan and others, "Muon", 2024), scaled as in "Muon is
    Scalable for LLM Training" (Liu and others, 2025), so that AdamW's learning rate and decay serve. Learns more of a token than AdamW, for
    about a tenth more time. Matrices of one shape are handled together."""

    MOMENTUM = 0.95
    COEFFICIENTS = (3.4445, -4.7750, 2.0315)

    def __init__(self, matrices):
        self.groups = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
        self.momenta = {key: torch.zeros(len(group), *key, device=group[0].device) for key, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate, decay):
        a, b, c = self.COEFFICIENTS
        for key, group in self.groups.items():
            wide = [matrix.shape[0] <= matrix.shape[1] for matrix in group]
            gradients = torch.stack([m.grad if w else m.grad.T for m, w in zip(group, wide)])
            momentum = self.momenta[key].mul_(self.MOMENTUM).add_(gradients)
            x = gradients.add(momentum, alpha=self.MOMENTUM)
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                gram = x @ x.mT
                x = a * x + (b * gram + c * gram @ gram) @ x
            for matrix, w, update in zip(group, wide, x):
                matrix.mul_(1 - rate * decay).add_(update if w else update.T, alpha=-rate * 0.2 * max(key) ** 0.5)


def learning_rate(step):
    """Up, level, and down to nothing over the last steps: until those begin, a run is the same for every number of steps."""
    left = (ARGS.steps - step) / max(1.0, ARGS.decay_share * ARGS.steps)
    return ARGS.learning_rate * min(1.0, (step + 1) / ARGS.warmup, left)


def share_right(model, tokenizer, name, max_tokens=40):
    """Share of right answers to a set of single questions, greedy."""
    rows = questions.read(name)
    prompts = [tokenizer.encode(f"<|im_start|>user\n{row['turns'][0]}<|im_end|>\n<|im_start|>assistant\n").ids for row in rows]
    answers = model.answer(prompts, tokenizer.token_to_id(END), max_tokens)
    return sum(questions.is_right(row, tokenizer.decode(answer)) for row, answer in zip(rows, answers)) / len(rows)


def main():
    torch.set_num_threads(ARGS.threads)
    torch.manual_seed(ARGS.seed)
    ARGS.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(ARGS.tokenizer))
    n_vocab, shape = tokenizer.get_vocab_size(), SHAPES[ARGS.shape]
    model = Decoder(shape, n_vocab).to(ARGS.device)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert n_parameters == shape.parameters(n_vocab)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": ARGS.weight_decay}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.95))

    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers." in name]
    muon = Muon(matrices)

    cache = ARGS.corpus.parent
    short = data.rows(ARGS.corpus, ARGS.tokenizer, ARGS.row_tokens, 0.0, ARGS.cut_share, ARGS.chain_share, ARGS.whole_exact, None, ARGS.seed, cache)
    stages = [Batches(short, ARGS.rows, ARGS.noise, ARGS.seed, n_vocab)]
    first_long = ARGS.steps
    if ARGS.long_share > 0:
        long = data.rows(ARGS.corpus, ARGS.tokenizer, 4 * ARGS.row_tokens, 0.5, 0.0, 1.0, ARGS.whole_exact, 100_000, ARGS.seed, cache)
        stages.append(Batches(long, max(1, ARGS.rows // 4), ARGS.noise, ARGS.seed + 1, n_vocab))
        first_long = round(ARGS.steps * (1 - ARGS.long_share))
    n_tokens = int((short[2] > 0).sum())
    print(f"{n_parameters} parameters, {n_tokens} tokens in {short.shape[1]} rows, {ARGS.steps / stages[0].per_epoch:.2f} passes", flush=True)

    checkpoint, step, seconds, tokens = ARGS.out / "checkpoint.pt", 0, 0.0, 0
    options = {key: str(value) for key, value in vars(ARGS).items() if key not in ("minutes", "threads", "device", "out", "corpus", "tokenizer", "checkpoint_every", "evaluate_every", "compile")}
    if ARGS.begin_with:
        model.load_state_dict(torch.load(ARGS.begin_with, map_location=ARGS.device, weights_only=True)["model"])
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=ARGS.device, weights_only=True)
        # Another number of steps changes nothing before the learning rate begins to fall.
        level = (1 - max(ARGS.decay_share, ARGS.long_share)) * min(ARGS.steps, int(state["options"]["steps"]))
        if {**state["options"], "steps": ""} != {**options, "steps": ""} or (state["options"] != options and state["step"] > level):
            raise SystemExit(f"{checkpoint} belongs to other options: {state['options']}")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        muon.momenta = state["muon"]
        step, seconds, tokens = state["step"], state["seconds"], state["tokens"]
        print(f"goes on from step {step}", flush=True)

    hidden_of = torch.compile(model.hidden, dynamic=False) if ARGS.compile else model.hidden

    def save():
        state = {"options": options, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "muon": muon.momenta, "step": step, "seconds": seconds, "tokens": tokens}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    curve = ARGS.out / "loss.csv"
    kept = [row for row in csv.reader(curve.open()) if row[0].isdigit() and int(row[0]) <= step] if curve.exists() else []
    out = curve.open("w", newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["step", "tokens", "seconds", "learning_rate", "loss", "development"])
    writer.writerows(kept)
    started = last = time.monotonic()
    losses = []
    try:
        while step < ARGS.steps and not (ARGS.minutes and last - started > 60 * ARGS.minutes):
            stage = int(step >= first_long and (step - first_long) % 2 == 0)
            inputs, targets, weights, mask = stages[stage].get((step - first_long) // 2 if stage else step, ARGS.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step)
            hidden = hidden_of(inputs, mask)
            learned = weights > 0
            loss = F.cross_entropy(model.logits(hidden[learned]), targets[learned], reduction="none")
            loss = (loss * weights[learned]).sum() / weights.sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            muon.step(learning_rate(step), ARGS.weight_decay)
            for matrix in matrices:
                matrix.grad = None  # AdamW leaves out what has no gradient.
            optimizer.step()
            losses.append(loss.item())
            step += 1
            tokens += inputs.numel()
            now = time.monotonic()
            seconds, last = seconds + now - last, now
            score = ""
            evaluated = ARGS.evaluate_every > 0 and (step % ARGS.evaluate_every == 0 or step == ARGS.steps)
            if evaluated:
                score = f"{share_right(model, tokenizer, 'development'):.4f}"
                last = time.monotonic()  # Measuring is not training.
            if evaluated or step % 20 == 0:
                mean = sum(losses) / len(losses)
                losses = []
                writer.writerow([step, tokens, f"{seconds:.1f}", f"{learning_rate(step - 1):.6f}", f"{mean:.4f}", score])
                out.flush()
                print(f"step {step} loss {mean:.4f} {tokens / seconds:.0f} tokens/s {score}", flush=True)
            if step % ARGS.checkpoint_every == 0 or step == ARGS.steps:
                save()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    save()
    out.close()
    print(f"step {step} of {ARGS.steps}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
