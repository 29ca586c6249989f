"""Dialogues for the demo model, made from the grammar. `python corpus.py --out build/corpus.jsonl`

Deterministic: the same grammar, documents, seed and Python give the same bytes. Facts of settings (flag, default, key, variable, values), of
formats and of families come from docs/*/settings.md and docs/*/formats.md, which the program's own tables make. Standard library only.
"""

import argparse
import json
import pathlib
import random
import re

from generators import GENERATORS, MEMORY, memory_dialogue, arithmetic_dialogue
from templates import Grammar, TemplateError, expand, fill, normal, tidy

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs"
LANGS = ("en", "ja")

# How often an intent is asked, by the first letters of its name; slash commands have none of these prefixes.
WEIGHTS = (("o_", 1.0), ("t_", 1.0), ("f_", 1.0), ("s_", 0.8), ("r_", 14.0), ("", 2.0))
# How often each kind of question is taken where an intent has it.
KINDS = {"do": 5.0, "ask": 3.0, "free": 22.0, "name": 1.5, "noun": 3.0, "default": 0.4, "key": 0.4, "var": 0.4, "values": 0.4}
JA_FORMS = {"DICT": "dict", "TAI": "tai", "TE": "te", "POT": "pot", "POTMASU": "potmasu", "BA": "ba", "STEM": "stem"}
JA_SPELLINGS = (("でき", "出来"), ("ください", "下さい"), ("わか", "分か"), ("分か", "わか"), ("方法", "ほうほう"), ("とき", "時"), ("一", "1"), ("もう", "もう "), ("教えて", "おしえて"), ("。", "! "))
SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are a helpful assistant for rustorch-cli.", "Be brief.", "You answer in one sentence.",
    "Answer politely.", "You are the demo model of rustorch-cli.", "あなたは親切なアシスタントです。", "簡潔に答えてください。",
    "丁寧に答えてください。", "あなたは rustorch-cli のデモモデルです。",
)


class Intent:
    """One thing that can be asked, in both languages."""

    def __init__(self, name, names):
        self.name, self.names = name, names
        self.lines = {}  # "do.en" -> [template]
        self.fields = {}  # "opt", "set", "eg", "see"
        self.row = None  # of docs/en/settings.md

    def get(self, key):
        return self.lines.get(key, [])


def read_table(path, columns):
    """The rows of the Markdown tables with that many columns, cells without code marks."""
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("\\|", "|").replace("\0", "|") for cell in line.replace("\\|", "\0").strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == columns:
            yield cells


def settings():
    """Key of a setting -> what the documents say of it."""
    rows = {}
    for flags, key, variable, default, values, _ in read_table(DOCS / "en" / "settings.md", 6):
        flag = re.findall(r"--[a-z-]+", flags)[0]
        rows[key.strip("`")] = {
            "flag": flag, "key": key.strip("`"), "var": variable.strip("`"), "default": default.strip("`").strip(),
            "values": values.strip("`").strip(), "switch": values.strip("`") == "true|false",
        }
    return rows


KNOWN_FAMILIES = ("Llama", "Qwen", "Gemma", "Phi", "Granite", "OLMo", "DeepSeek", "gpt-oss", "Falcon", "GLM")


def formats():
    """What docs/en/formats.md lists: file formats, and the best known families by name (all would be too long an answer)."""
    text = (DOCS / "en" / "formats.md").read_text(encoding="utf-8")
    names = re.findall(r"`(\w+)`", text.split("## File formats")[1].split("##")[0])
    families = [cells[1] for cells in read_table(DOCS / "en" / "formats.md", 2)]
    short = []
    for family in families:
        word = family.split(",")[0].split(" ")[0]
        if word in KNOWN_FAMILIES and word not in short:
            short.append(word)
    return names, short


FORMAT_NAMES = {"gguf": "GGUF", "safetensors": "Safetensors (Hugging Face)", "pytorch": "PyTorch", "onnx": "ONNX", "mlx": "MLX"}


def in_words(items, lang):
    if lang == "ja":
        return "、".join(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def read_words():
    words = {}
    for line in (HERE / "grammar" / "words.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, template = line.split(" = ", 1)
            words[name] = template
    return words


def read_sections(name):
    """`[section]` -> lines."""
    sections, lines = {}, None
    for line in (HERE / "grammar" / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\[([a-z_.]+)\]", line):
            lines = sections.setdefault(match[1], [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


def read_intents(present_formats):
    intents = {}
    for file in ("commands.txt", "options.txt", "tools.txt", "facts.txt", "talk.txt"):
        intent = None
        for number, line in enumerate((HERE / "grammar" / file).read_text(encoding="utf-8").splitlines(), 1):
            if not line or line.startswith("#"):
                continue
            if line.startswith("@ "):
                name, _, names = line[2:].partition(" ")
                if name in intents:
                    raise TemplateError(f"{file}:{number}: {name} twice")
                intent = intents[name] = Intent(name, [n.strip() for n in names.split(",") if n.strip()])
                continue
            key, _, value = line.partition(": ")
            condition = re.fullmatch(r"say([+-])(\w+)\.(\w\w)", key)
            if condition:
                if (condition[2] in present_formats) == (condition[1] == "+"):
                    intent.lines.setdefault(f"say.{condition[3]}", []).append(value)
            elif re.fullmatch(r"(do|ask|noun|say|undo)\.(en|ja)", key):
                intent.lines.setdefault(key, []).append(value)
            elif key in ("opt", "set", "eg", "see"):
                intent.fields[key] = value
            else:
                raise TemplateError(f"{file}:{number}: what is {key!r}?")
    for path in sorted((HERE / "grammar" / "free").glob("*.txt")):
        intent = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("@ "):
                intent = intents[line[2:]]
            elif match := re.fullmatch(r"(en|ja): (.*)", line):
                intent.lines.setdefault(f"free.{match[1]}", []).extend(part.strip() for part in match[2].split(" ; "))
            elif line and not line.startswith("#"):
                raise TemplateError(f"{path.name}:{number}: what is this?")
    return intents


class Corpus:
    """The grammar with the facts filled in; makes questions, answers and dialogues."""

    def __init__(self):
        self.formats, self.families = formats()
        self.grammar = Grammar(read_words())
        self.frames = {key: [self.grammar.parse(line) for line in lines] for key, lines in read_sections("frames.txt").items()}
        sections = read_sections("followups.txt")
        self.next = [self.next_row(line) for line in sections.pop("next")]
        self.followups = {key: [self.grammar.parse(line) for line in lines] for key, lines in sections.items()}
        self.intents = read_intents(self.formats)
        rows = settings()
        for intent in self.intents.values():
            if "opt" in intent.fields:
                intent.row = rows[intent.fields["opt"]]
                if intent.row["flag"] not in intent.names:
                    raise TemplateError(f"{intent.name}: the documents call it {intent.row['flag']}")
        self.trees = {(name, lang): self.question_trees(intent, lang) for name, intent in self.intents.items() for lang in LANGS}

    def next_row(self, line):
        ends, en, ja = line.split(" :: ")
        source, target = ends.split(" > ")
        return source, target, {"en": ("alt", [self.grammar.parse(en)]), "ja": ("alt", [self.grammar.parse(ja)])}

    # Questions

    def question_trees(self, intent, lang):
        """Kind -> trees of everything that can be asked of the intent in a language."""
        trees, parse = {}, self.grammar.parse
        for template in intent.get(f"do.{lang}"):
            action = parse(template)
            if lang == "en":
                slots = {"DO": action, "ING": self.grammar.ing(action)}
            else:
                slots = {slot: self.grammar.ja(action, form) for slot, form in JA_FORMS.items()}
            trees.setdefault("do", []).append(("alt", [fill(frame, slots) for frame in self.frames[f"{lang}.do"]]))
        for kind in ("ask", "free"):
            trees[kind] = [parse(template) for template in intent.get(f"{kind}.{lang}")]
        slots = {"NAME": ("alt", self.spoken_names(intent, lang))}
        nouns = [parse(template) for template in intent.get(f"noun.{lang}")]
        if nouns:
            slots["N"] = ("alt", nouns)
            trees["noun"] = [fill(frame, slots) for frame in self.frames[f"{lang}.noun"]]
        if intent.names and intent.name not in ("double_slash", "ctrl_c", "ctrl_d", "unknown_command"):
            trees["name"] = [fill(frame, slots) for frame in self.frames[f"{lang}.name"]]
        if intent.row and nouns:
            for kind in ("default", "key", "var", "values"):
                if self.detail(intent, kind, lang):
                    trees[kind] = [fill(frame, slots) for frame in self.frames[f"{lang}.{kind}"]]
        return {kind: list_ for kind, list_ in trees.items() if list_}

    @staticmethod
    def spoken_names(intent, lang):
        names = []
        for name in intent.names:
            names += [name, name]
            if name.startswith("/") and " " not in name:
                names += [f"the {name} command", f"the {name[1:]} command", f'"{name[1:]}"'] if lang == "en" else [f"{name} コマンド", f"{name[1:]} コマンド"]
            elif name.startswith("--"):
                names += [f"the {name} option", f"the {name} flag"] if lang == "en" else [f"{name} オプション", f"オプション {name}"]
            elif name.startswith("rustorch-cli "):
                names += [name[13:], name[13:]]
        return names or ["this"]

    def question(self, intent, lang, rng, kind=None):
        trees = self.trees[intent.name, lang]
        while True:
            kinds = [kind] if kind else list(trees)
            chosen = rng.choices(kinds, [KINDS[k] for k in kinds])[0]
            text = tidy(expand(rng.choice(trees[chosen]), rng))
            if len(normal(text)) > 1:
                return chosen, self.noise(text, lang, rng)

    @staticmethod
    def noise(text, lang, rng):
        """What people do when they type: case, punctuation, slips."""
        if lang == "ja":
            if text.endswith("?") and rng.random() < 0.6:
                text = text[:-1] + rng.choice(["?", "?", ""])
            elif not text.endswith(("?", "?", "。", "!")) and rng.random() < 0.15:
                text += "。"
            if rng.random() < 0.15:
                text = text.replace(*rng.choice(JA_SPELLINGS))
            if text.endswith(("たい?", "たい?", "です?", "です?", "ない?")):
                text = text[:-1]
            return text
        draw = rng.random()
        if draw < 0.5:
            text = text[0].upper() + text[1:]
        elif draw < 0.7:
            text = text.lower()
        if rng.random() < 0.25:
            text = text.rstrip("?.!")
        if rng.random() < 0.07:
            letters = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
            if letters:
                at = rng.choice(letters)
                text = rng.choice([
                    text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:], text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
                ])
        if rng.random() < 0.04:
            text = rng.choice(["please: ", "hi, ", "hello! ", "ok, ", "so ", "um, ", "sorry, "]) + text
        return text or "?"

    # Answers

    def answer(self, intent, lang, kind="main"):
        if kind in ("default", "key", "var", "values"):
            return self.detail(intent, kind, lang)
        says = intent.get(f"say.{lang}")
        text = says[0]
        names = [FORMAT_NAMES[name] for name in FORMAT_NAMES if name in self.formats]
        text = text.replace("{formats}", in_words(names, lang)).replace("{families}", in_words(self.families, lang))
        if "see" in intent.fields:
            see = intent.fields["see"].split(", ")
            end = "" if text.endswith((".", "。")) else "." if lang == "en" else "。"
            text += end + (f" See also {' and '.join(see)}." if lang == "en" else f"{' と '.join(see)} も参照。")
        return text

    @staticmethod
    def detail(intent, kind, lang):
        """One fact of a setting, or None where there is nothing to say."""
        row = intent.row
        if row is None:
            return None
        flag, key, default = row["flag"], row["key"], row["default"]
        en = lang == "en"
        if kind == "default":
            if row["switch"]:
                if flag.startswith("--no-"):
                    return f"{key} is {default} by default; {flag} turns it off." if en else f"{key} の既定値は {default} で、{flag} でオフにします。"
                return f"{flag} is off by default." if en else f"{flag} は既定ではオフです。"
            if not default:
                return f"{flag} has no default value." if en else f"{flag} に既定値はありません。"
            return f"{flag} has the default value {default}." if en else f"{flag} の既定値は {default} です。"
        if kind == "key":
            return f"{key} is the key of {flag} in ~/.rustorch/config.toml." if en else f"{key} が ~/.rustorch/config.toml での {flag} のキーです。"
        if kind == "var":
            return f"{row['var']} is the environment variable of {flag}." if en else f"{row['var']} が {flag} の環境変数です。"
        if row["switch"] or not row["values"]:
            return None
        parts = []
        for part in row["values"].split("|"):
            low, dots, high = part.partition("..")
            above = low.startswith("above ")
            low = low.removeprefix("above ")
            if not dots:
                parts.append(part)
            elif en:
                parts.append(f"a number above {low} up to {high}" if above else f"a number from {low} to {high}")
            else:
                parts.append(f"{low} より大きく {high} 以下の数" if above else f"{low} から {high} の数")
        joined = (", ".join(parts[:-1]) + " or " + parts[-1] if en else "、".join(parts[:-1]) + " または " + parts[-1]) if len(parts) > 1 else parts[0]
        return f"{flag} takes {joined}." if en else f"{flag} の値は {joined} です。"

    # Dialogues

    def pick(self, rng):
        if not hasattr(self, "population"):
            self.population = list(self.intents.values())
            self.weights = [next(weight for prefix, weight in WEIGHTS if intent.name.startswith(prefix)) for intent in self.population]
        return rng.choices(self.population, self.weights)[0]

    def turn(self, intent, lang, rng, kind=None):
        kind, question = self.question(intent, lang, rng, kind)
        return question, self.answer(intent, lang, kind)

    def follow(self, intent, lang, rng, answered):
        """A second question that the first explains: (question, answer, intent, language of the answer), or None."""
        other = "ja" if lang == "en" else "en"
        frames = self.followups
        options = []

        def add(weight, key, answer, language=lang, target=intent):
            if answer:
                options.append((weight, key, answer, language, target))

        if intent.get(f"undo.{lang}"):
            add(3, f"{lang}.undo", intent.get(f"undo.{lang}")[0])
        if "eg" in intent.fields:
            add(2, f"{lang}.example", f"{'Example' if lang == 'en' else '例'}: {intent.fields['eg']}")
        add(2, f"{lang}.to_{other}", self.answer(intent, other), other)
        add(0.7, f"{lang}.repeat", answered)
        for kind in ("default", "key", "var", "values"):
            add(0.7, f"{lang}.{kind}", self.detail(intent, kind, lang))
        if key := intent.fields.get("set"):
            add(1.5, f"{lang}.chat", f"/set {key} VALUE changes it in a chat." if lang == "en" else f"チャット中は /set {key} 値 で変更します。")
        twin = f"o_{intent.name}" if f"o_{intent.name}" in self.intents else {"save": "o_save_history", "load": "o_load_history", "help": "o_help_flag"}.get(intent.name)
        if twin:
            add(1.5, f"{lang}.startup", self.answer(self.intents[twin], lang), target=self.intents[twin])
        for source, target, trees in self.next:
            if source == intent.name:
                options.append((2.5, trees[lang], self.answer(self.intents[target], lang), lang, self.intents[target]))
        weights = [option[0] for option in options]
        _, key, answer, language, target = rng.choices(options, weights)[0]
        tree = rng.choice(frames[key]) if isinstance(key, str) else key
        text = tidy(expand(tree, rng))
        if len(normal(text)) < 2:
            return None
        return self.noise(text, lang, rng), answer, target, language

    def dialogue(self, rng, sums=0.0):
        """One dialogue: (turns, names of the intents). `sums`: share of sums, spelling and the like on top of the usual one."""
        lang = "en" if rng.random() < 0.5 else "ja"
        draw = rng.random()
        if sums and rng.random() < sums:
            draw *= 0.13  # The two kinds that follow.
        if draw < 0.11:
            name = rng.choices([name for name, _, _ in GENERATORS], [weight for _, weight, _ in GENERATORS])[0]
            make = next(make for other, _, make in GENERATORS if other == name)
            return make(lang, rng), [name]
        if draw < 0.13:
            return arithmetic_dialogue(lang, rng), ["arithmetic_chain"]
        if draw < 0.18:
            between = []
            if rng.random() < 0.5:
                between = [self.turn(self.pick(rng), lang, rng)]
            return memory_dialogue(lang, rng, between), ["memory"]
        turns, names = [], []
        while True:
            intent = self.pick(rng)
            turns.append(self.turn(intent, lang, rng))
            names.append(intent.name)
            if 0.18 <= draw < 0.44 and not intent.name.startswith(("s_", "r_")):
                current, language = intent, lang
                for _ in range(rng.choice([1, 1, 2])):
                    following = self.follow(current, language, rng, turns[-1][1])
                    if following is None:
                        break
                    turns.append(following[:2])
                    current, language = following[2], following[3]
                    names.append(current.name)
            if draw < 0.86 or len(turns) >= 3 or rng.random() < 0.3:
                break
            if rng.random() < 0.1:
                lang = "ja" if lang == "en" else "en"
        if rng.random() < 0.05:
            turns.append(self.turn(self.intents["s_thanks"], lang, rng))
        return turns, names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "build" / "corpus.jsonl")
    parser.add_argument("--dialogues", type=int, default=600_000)
    parser.add_argument("--seed", type=int, default=20_261_122)
    parser.add_argument("--sums", type=float, default=0.0, help="share of sums and the like on top of the usual one")
    args = parser.parse_args()
    corpus, rng = Corpus(), random.Random(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    n_turns = 0
    with args.out.open("w", encoding="utf-8", newline="\n") as out:
        for _ in range(args.dialogues):
            turns, names = corpus.dialogue(rng, args.sums)
            messages = []
            if rng.random() < 0.12:
                messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
            for question, answer in turns:
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            n_turns += len(turns)
            out.write(json.dumps({"messages": messages, "intents": names}, ensure_ascii=False) + "\n")
    print(f"{args.dialogues} dialogues, {n_turns} turns, {args.out.stat().st_size / 1e6:.1f} MB, {len(corpus.intents)} intents, {len(MEMORY)} kinds of memory")


if __name__ == "__main__":
    main()
