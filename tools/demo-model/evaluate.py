"""The score of a model file, by the program itself. `python evaluate.py --program target/release/rustorch-cli --model FILE`

Each question is one run in one-shot mode (greedy, empty home folder); the turns of a dialogue go on through --save-history and --load-history. Printed:
per set, the share of answers with the right command or option name, of those whose first name is right, and of those in the language of
the question; and every wrong answer. Exits with 1 below --least. Standard library only.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import questions


def ask(program, model, turns, home, extra):
    """The last answer."""
    history = pathlib.Path(home) / "turns.json"
    history.unlink(missing_ok=True)
    answer = ""
    for turn in turns:
        command = [
            program, "--model", model, f"--prompt={turn}", "--temperature", "0", "--max-tokens", "120", "--no-show-progress", "--language", "en", "--log-file", "",
            *extra,
        ]
        if len(turns) > 1:
            command += ["--save-history", str(history)] + (["--load-history", str(history)] if history.exists() else [])
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, "HOME": home}, timeout=120, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        answer = done.stdout.decode("utf-8").strip()
    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/rustorch-cli")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--sets", nargs="+", default=["held-out", "multi-turn", "others"])
    parser.add_argument("--least", type=float, default=0.9, help="share of the held-out questions that must be right")
    parser.add_argument("--first", type=int, default=0, help="only so many questions of each set")
    parser.add_argument("--option", action="append", default=[], help="a further argument for the program, such as --option=--threads=1")
    args = parser.parse_args()
    score = 1.0
    with tempfile.TemporaryDirectory() as home:
        for name in args.sets:
            rows = questions.read(name)[: args.first or None]
            answers = [ask(args.program, args.model, row["turns"], home, args.option) for row in rows]
            right = [questions.is_right(row, answer) for row, answer in zip(rows, answers)]
            for row, answer, good in zip(rows, answers, right):
                if not good:
                    print(f"wrong: {' / '.join(row['turns'])} [{' or '.join(row['any'] or row['all'])}] -> {answer}")
            first = sum(questions.is_first(row, answer) for row, answer in zip(rows, answers))
            same = sum(questions.in_language(row, answer) for row, answer in zip(rows, answers))
            strict = f", first name right {first}, in the language of the question {same}" if name == "held-out" else ""
            print(f"{name}: {sum(right)} of {len(rows)} right ({sum(right) / len(rows):.1%}){strict}")
            if name == "held-out":
                score = sum(right) / len(rows)
    sys.exit(score < args.least)


if __name__ == "__main__":
    main()
