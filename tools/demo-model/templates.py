"""Templates: parsing, random expansion, inflection, and the reverse test "can this template say that?".

A template is text with `[a|b]` (one of them), `(a)` (with or without), `<word>` (a list of words.txt); a backslash takes the
next character as it is. An English template of an action begins with its verb in the base form. A Japanese one ends with a verb in
dictionary form and its class: `/s` (する), `/1` (ichidan), `/5` (godan). No dialogue is known here, and nothing is read or written.
"""

import re

# English verbs whose last consonant doubles before -ing.
DOUBLING = {"set", "stop", "begin", "put", "get", "cut", "run", "quit", "drop", "swap", "let", "plug", "wrap", "log", "map", "dim", "cap", "skip", "shut", "ban", "pin", "chat", "scrap", "wipe out", "strip", "sit", "omit", "refer", "zip"}

# Godan endings: (i row, e row, te form).
GODAN = {
    "う": ("い", "え", "って"), "く": ("き", "け", "いて"), "ぐ": ("ぎ", "げ", "いで"), "す": ("し", "せ", "して"), "つ": ("ち", "て", "って"),
    "ぬ": ("に", "ね", "んで"), "ぶ": ("び", "べ", "んで"), "む": ("み", "め", "んで"), "る": ("り", "れ", "って"),
}


class TemplateError(ValueError):
    """A template that cannot be parsed or inflected."""


def gerund(verb):
    if verb in DOUBLING:
        return verb + verb[-1] + "ing"
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")) and verb != "be":
        return verb[:-1] + "ing"
    return verb + "ing"


def conjugate(verb, kind, form):
    """`form`: dict 書く, tai 書きたい, te 書いて, pot 書ける, potmasu 書けます, ba 書けば, stem 書き."""
    if form == "dict":
        return verb
    if kind == "s":
        if not verb.endswith("する"):
            raise TemplateError(f"{verb} is not a verb of する")
        root = verb[:-2]
        return root + {"tai": "したい", "te": "して", "pot": "できる", "potmasu": "できます", "ba": "すれば", "stem": "し"}[form]
    root, last = verb[:-1], verb[-1]
    if kind == "1":
        if last != "る":
            raise TemplateError(f"{verb} is not ichidan")
        return root + {"tai": "たい", "te": "て", "pot": "られる", "potmasu": "られます", "ba": "れば", "stem": ""}[form]
    if last not in GODAN:
        raise TemplateError(f"{verb} is not godan")
    i, e, te = GODAN[last]
    if verb.endswith("行く"):
        te = "って"
    return root + {"tai": i + "たい", "te": te, "pot": e + "る", "potmasu": e + "ます", "ba": e + "ば", "stem": i}[form]


class Grammar:
    """Parses templates against a dictionary of word lists. A tree is a str, ("seq", [trees]) or ("alt", [trees])."""

    def __init__(self, words):
        self.words = words
        self.parsed = {}

    def parse(self, text):
        if text not in self.parsed:
            tree, at = self._alternatives(text, 0, "")
            if at != len(text):
                raise TemplateError(f"unexpected {text[at]!r} at {at} of {text!r}")
            self.parsed[text] = tree
        return self.parsed[text]

    def _alternatives(self, text, at, closing):
        choices, items, literal = [], [], ""

        def close_item():
            nonlocal literal
            if literal:
                items.append(literal)
                literal = ""

        def close_choice():
            nonlocal items
            close_item()
            choices.append(items[0] if len(items) == 1 else ("seq", items))
            items = []

        while at < len(text) and not (closing and text[at] == closing):
            char = text[at]
            if char == "\\":
                literal += text[at + 1]
                at += 2
            elif char in "[(":
                close_item()
                end = "]" if char == "[" else ")"
                tree, at = self._alternatives(text, at + 1, end)
                if at >= len(text):
                    raise TemplateError(f"{char} is not closed in {text!r}")
                at += 1
                items.append(tree if char == "[" else ("alt", [tree, ""]))
            elif char == "|" and closing:
                close_choice()
                at += 1
            elif char == "<":
                end = text.index(">", at)
                name = text[at + 1 : end]
                if name not in self.words:
                    raise TemplateError(f"no words <{name}>, in {text!r}")
                close_item()
                items.append(self.parse(self.words[name]))
                at = end + 1
            elif char in "])":
                raise TemplateError(f"unexpected {char} in {text!r}")
            else:
                literal += char
                at += 1
        close_choice()
        return (choices[0] if len(choices) == 1 else ("alt", choices)), at

    def ing(self, tree):
        """An English action with its first verb as a gerund."""
        if isinstance(tree, str):
            verb, space, rest = tree.partition(" ")
            return gerund(verb) + space + rest
        kind, items = tree
        if kind == "alt":
            return kind, [self.ing(item) for item in items]
        return kind, [self.ing(items[0])] + items[1:]

    def ja(self, tree, form):
        """A Japanese action with its last verb in another form."""
        if isinstance(tree, str):
            match = re.fullmatch(r"(.*?)([^\s、]+)/([s15])", tree, re.S)
            if not match:
                raise TemplateError(f"no verb class at the end of {tree!r}")
            return match[1] + conjugate(match[2], match[3], form)
        kind, items = tree
        if kind == "alt":
            return kind, [self.ja(item, form) for item in items]
        return kind, items[:-1] + [self.ja(items[-1], form)]


def fill(tree, slots):
    """Replaces `{NAME}` inside the literals by other trees."""
    if isinstance(tree, str):
        parts = re.split(r"\{(\w+)\}", tree)
        if len(parts) == 1:
            return tree
        return ("seq", [slots[part] if i % 2 else part for i, part in enumerate(parts) if part])
    kind, items = tree
    return kind, [fill(item, slots) for item in items]


def expand(tree, rng):
    """One random sentence."""
    if isinstance(tree, str):
        return tree
    kind, items = tree
    if kind == "alt":
        return expand(rng.choice(items), rng)
    return "".join([expand(item, rng) for item in items])


def tidy(text):
    """Single blanks, none at the ends or before punctuation."""
    text = re.sub(r" +", " ", text).strip()
    return re.sub(r" ([?!,.。、?])", r"\1", text)


def normal(text):
    """What counts when two questions are compared: letters and digits without case."""
    return "".join(char for char in text.lower() if char.isalnum())


def pattern(tree):
    """A regular expression for everything the tree can say, normalized."""
    if isinstance(tree, str):
        return re.escape(normal(tree))
    kind, items = tree
    if kind == "alt":
        return "(?:" + "|".join(pattern(item) for item in items) + ")"
    return "".join(pattern(item) for item in items)


def count(tree):
    """How many sentences (with repetitions) the tree has."""
    if isinstance(tree, str):
        return 1
    kind, items = tree
    numbers = [count(item) for item in items]
    if kind == "alt":
        return sum(numbers)
    product = 1
    for number in numbers:
        product *= number
    return product
