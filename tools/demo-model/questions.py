"""Sets of questions with the names that a right answer contains, and the judging of answers. Standard library only."""

import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent / "questions"
NAME = re.compile(r"(?<![\w/.-])(?:/[a-z]+|--[a-z][a-z-]*|-p(?![\w-])|Ctrl-[CD]|rustorch-cli (?:config )?[a-z]+|//)", re.ASCII)


def read(name):
    """Rows with `lang`, `turns` and `any` or `all`: names of which one, or texts of which each, is in the last answer."""
    rows = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return [{"lang": row["lang"], "turns": row.get("turns") or [row["question"]], "any": row.get("names"), "all": row.get("all")} for row in rows]


def has_name(answer, name):
    return re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w-])", answer, re.ASCII) is not None


def is_right(row, answer):
    if row["any"]:
        return any(has_name(answer, name) for name in row["any"])
    return all(text in answer for text in row["all"])


def is_first(row, answer):
    """Stricter: the first command or option that the answer names is a right one."""
    first = NAME.search(answer)
    return bool(row["any"] and first and any(answer[first.start() :].startswith(name) for name in row["any"]))


def in_language(row, answer):
    """Whether the last answer is in the language of the questions (of no use for follow-ups that ask for the other one)."""
    return answer.isascii() if row["lang"] == "en" else not answer.isascii()
