"""Checks of the grammar and the questions. `python check.py [--corpus build/corpus.jsonl] [--probe development|held-out]`

1. Every command, tool and setting of docs/en has an intent, and every command or option that an answer names exists there.
2. No held-out question can be said by the grammar (tested with the templates as regular expressions), nor occurs in the corpus; and the questions
   name only commands and options that exist.
3. --probe: how a plain naive Bayes classifier, fed with the corpus, answers a set of questions: an estimate in seconds of how well the
   grammar covers them. Tune the grammar with `development`; `held-out` is for a last look. Standard library only.
"""

import argparse
import collections
import json
import math
import pathlib
import re
import sys

from corpus import DOCS, HERE, LANGS, Corpus, read_table
from templates import count, normal, pattern

# In the documents' list but not worth an intent of their own; answers of other intents cover them.
WITHOUT_INTENT = {
    "--json", "--special", "--no-bos", "--messages", "--vars", "--now", "--no-generation-prompt", "--tokens", "--out", "--last", "--file", "--prompt-tokens",
    "--gen-tokens", "--depth", "--parallel", "--repeat", "--sweep", "--origin", "--replace", "rustorch-cli", "rustorch-cli help",
}
# Named by answers, and not in the tables: keys of the keyboard, and the model that these scripts make.
OTHER_NAMES = {"--release", "--model demo"}


def documented():
    """Names of the commands, options and tools in docs/en."""
    text = (DOCS / "en" / "commands.md").read_text(encoding="utf-8")
    chat, command_line = text.split("## On the command line")
    commands = set(re.findall(r"^\| `(/[a-z]+)", chat, re.M)) | set(re.findall(r"`(/(?:quit|bye))`", chat))
    arguments = set(re.findall(r"(--[a-z-]+|(?<=\[)-t)", chat))
    options = set(re.findall(r"&nbsp;`[^`]*?(--[a-z-]+)", command_line))
    tools = {name for name in re.findall(r"^\| `(rustorch-cli(?: [a-z]+)?)`", command_line, re.M)}
    flags = {flag for cells in read_table(DOCS / "en" / "settings.md", 6) for flag in re.findall(r"--[a-z-]+", cells[0])}
    return commands, arguments, options | flags, tools


def check_facts(corpus):
    commands, arguments, options, tools = documented()
    known = " ".join(name for intent in corpus.intents.values() for name in intent.names)
    covered = set(re.findall(r"(?<!\S)/[a-z]+|--[a-z-]+|rustorch-cli [a-z]+", known))
    problems = [f"no intent for {name}" for name in sorted((commands | options | tools) - covered - WITHOUT_INTENT)]
    for intent in corpus.intents.values():
        for lang in LANGS:
            if not intent.get(f"say.{lang}"):
                problems.append(f"{intent.name} has no answer in {lang}")
                continue
            if not any(intent.get(f"{kind}.{lang}") for kind in ("do", "ask", "noun")):
                problems.append(f"{intent.name} has no question in {lang}")
            texts = [corpus.answer(intent, lang)] + intent.get(f"undo.{lang}") + [intent.fields.get("eg", "")]
            problems += [f"{intent.name}.{lang}: {name} is in no table" for text in texts for name in unknown(text, commands, arguments | options, tools)]
    return problems


def unknown(text, commands, options, tools):
    """Names in a text that look like commands or options and are none."""
    # A slash inside a path (~/x, a/b, //home) is no command.
    for name in re.findall(r"(?<![\w~/.-])/([a-z]+)\b(?!/)", text):
        if f"/{name}" not in commands and name not in ("home",):
            yield f"/{name}"
    for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
        if name not in options and name not in OTHER_NAMES:
            yield name
    for name in re.findall(r"rustorch-cli (tokenize|detokenize|[a-z]+s?)(?= (?:--|show|FILE|<|>)|$)", text):
        if f"rustorch-cli {name}" not in tools and name not in ("folders",):
            yield f"rustorch-cli {name}"


def read_questions(name):
    return json.loads((HERE / "questions" / f"{name}.json").read_text(encoding="utf-8"))


def check_questions(corpus, held_out, corpus_path):
    commands, arguments, options, tools = documented()
    problems, seen = [], collections.Counter(normal(row["question"]) for row in held_out)
    problems += [f"asked twice: {question}" for question, times in seen.items() if times > 1]
    for row in held_out:
        for name in row["names"]:
            problems += [f"{row['question']}: {other} is in no table" for other in unknown(name, commands, arguments | options, tools)]
    questions = {lang: [(normal(row["question"]), row["question"]) for row in held_out if row["lang"] == lang] for lang in LANGS}
    for (name, lang), kinds in corpus.trees.items():
        for trees in kinds.values():
            for tree in trees:
                expression = re.compile(pattern(tree))
                problems += [f"{name} can say {text!r}" for key, text in questions[lang] if expression.fullmatch(key)]
    if corpus_path:
        with corpus_path.open(encoding="utf-8") as lines:
            for line in lines:
                for message in json.loads(line)["messages"]:
                    if message["role"] == "user" and normal(message["content"]) in seen:
                        problems.append(f"the corpus has {message['content']!r}")
    return problems


def features(text):
    """Words and pieces of three and four letters (two and three where there are no blanks)."""
    text = text.lower()
    if text.isascii():
        words = re.findall(r"[a-z0-9-]+", text)
        return words + [f"{a} {b}" for a, b in zip(words, words[1:])] + [f"~{word[:4]}" for word in words if len(word) > 4]
    kept = normal(text)
    return [kept[i : i + n] for n in (1, 2, 3) for i in range(len(kept) - n + 1)]


def probe(corpus, questions, corpus_path):
    """Multinomial naive Bayes over the first questions of the corpus."""
    counts, totals, vocabulary = collections.defaultdict(collections.Counter), collections.Counter(), set()
    with corpus_path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            first = next(message for message in row["messages"] if message["role"] == "user")["content"]
            if row["intents"][0] in corpus.intents:
                lang = "en" if first.isascii() else "ja"
                for feature in features(first):
                    counts[row["intents"][0], lang][feature] += 1
    for key, counter in counts.items():
        totals[key] = sum(counter.values())
        vocabulary.update(counter)
    right, wrong = 0, []
    for row in questions:
        parts = features(row["question"])
        scores = {
            key: sum(math.log((counter[part] + 0.1) / (totals[key] + 0.1 * len(vocabulary))) for part in parts)
            for key, counter in counts.items()
            if key[1] == row["lang"]
        }
        best = max(scores, key=scores.get)
        answer = corpus.answer(corpus.intents[best[0]], row["lang"])
        if any(name in answer for name in row["names"]):
            right += 1
        else:
            wrong.append(f"{row['question']} [{row['names'][0]}] -> {best[0]}")
    return right, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=pathlib.Path)
    parser.add_argument("--probe", choices=["development", "held-out"])
    args = parser.parse_args()
    corpus = Corpus()
    held_out = read_questions("held-out")
    problems = check_facts(corpus) + check_questions(corpus, held_out, args.corpus)
    for problem in problems:
        print("problem:", problem)
    sentences = sum(count(tree) for kinds in corpus.trees.values() for trees in kinds.values() for tree in trees)
    print(f"{len(corpus.intents)} intents, {sentences:.3g} ways to ask, {len(held_out)} held-out questions, {len(problems)} problems")
    if args.probe:
        questions = read_questions(args.probe)
        right, wrong = probe(corpus, questions, args.corpus)
        print("\n".join(wrong))
        print(f"probe: {right} of {len(questions)} of {args.probe}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
