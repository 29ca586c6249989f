"""Dialogues to rows of token ids. Rows hold several dialogues; none sees another (`document`), and only some tokens are learned (`kind`)."""

import hashlib
import itertools
import json
import random

import numpy as np
from tokenizers import Tokenizer

from generators import GENERATORS

QUESTION, ANSWER, EXACT_QUESTION = 1, 2, 3
# Intents whose questions have no word too many: every token of theirs counts (sums, spelling, names), so none is spoiled.
EXACT = {name for name, _, _ in GENERATORS} | {"arithmetic_chain", "memory"}
# Dialogues about what the user said of himself are not joined: "you have not told me" must stay true.
NOT_JOINED = {"memory"}
# Tokens that a cut answer keeps; names of commands and options are among the first.
CUT_ANSWER = 6


def encode(tokenizer, dialogues, row_tokens, joined_share, cut_share, chain_share, whole_exact, seed):
    """Yields (ids, kinds) of documents no longer than a row. Some join several dialogues, so that long chats are known. Others are cut within
    the last answer: its beginning shows that the question was understood, the rest is known by heart, and the time goes to other questions. Of
    the dialogues of several turns only a share is taken. `whole_exact`: answers to exact questions are never cut, as what counts is at their end."""
    rng = random.Random(seed)
    waiting, wanted = None, 0
    for start in range(0, len(dialogues), 4096):
        part = [row for row in dialogues[start : start + 4096] if sum(kind == ANSWER for _, kind in row[1]) == 1 or rng.random() < chain_share]
        encoded = tokenizer.encode_batch([text for _, pieces in part for text, _ in pieces])
        at = 0
        for names, pieces in part:
            ids, kinds = [], []
            for _, kind in pieces:
                piece = encoded[at].ids
                at += 1
                ids += piece
                kinds += [kind] * len(piece)
            # The last pieces are the head of the answer, the answer, and the line end.
            surplus = len(encoded[at - 2].ids) - CUT_ANSWER
            cut = surplus > 0 and rng.random() < cut_share and not (whole_exact and EXACT & set(names))
            if cut:
                ends = len(ids) - len(encoded[at - 1].ids) - surplus
                ids, kinds = ids[:ends], kinds[:ends]
            if len(ids) > row_tokens:
                continue
            if waiting is not None and not cut:
                has_system = pieces[0][1] == 0 and "system" in pieces[0][0]
                if wanted > 0 and not has_system and not NOT_JOINED & set(names) and len(waiting[0]) + len(ids) <= row_tokens:
                    waiting = (waiting[0] + ids, waiting[1] + kinds)
                    wanted -= 1
                    continue
                yield waiting
                waiting = None
            if not cut and not NOT_JOINED & set(names) and rng.random() < joined_share:
                waiting, wanted = (ids, kinds), rng.choice([1, 2, 3, 5, 8, 12])
            else:
                yield ids, kinds
    if waiting is not None:
        yield waiting


def pieces_of(messages, intents):
    """ChatML in pieces with their kind; the end mark belongs to what is learned, so that answers end."""
    pieces, question = [], EXACT_QUESTION if EXACT & set(intents) else QUESTION
    for message in messages:
        kind = {"user": question, "assistant": ANSWER}.get(message["role"], 0)
        pieces += [(f"<|im_start|>{message['role']}\n", 0), (f"{message['content']}<|im_end|>", kind), ("\n", 0)]
    return pieces


def pack(documents, row_tokens):
    """First fit into the rows that are still open."""
    rows, open_rows = [], []
    for ids, kinds in documents:
        place = next((row for row in open_rows if len(row[0]) + len(ids) <= row_tokens), None)
        if place is None:
            place = ([], [], [])
            rows.append(place)
            open_rows.append(place)
            if len(open_rows) > 32:
                open_rows.remove(max(open_rows, key=lambda row: len(row[0])))
        number = place[2][-1] + 1 if place[2] else 1
        place[0].extend(ids)
        place[1].extend(kinds)
        place[2].extend([number] * len(ids))
    out = np.zeros((3, len(rows), row_tokens), dtype=np.uint16)
    for at, row in enumerate(rows):
        for layer in range(3):
            out[layer, at, : len(row[layer])] = row[layer]
    return out


def rows(corpus, tokenizer_path, row_tokens, joined_share, cut_share, chain_share, whole_exact, most, seed, cache):
    """uint16 [ids, kinds, documents][row][token] of the first `most` dialogues, from the cache if it was made of the same things."""
    tokenizer_bytes = tokenizer_path.read_bytes()
    digest = hashlib.sha256(corpus.read_bytes() + tokenizer_bytes)
    digest.update(f"{row_tokens} {joined_share} {cut_share} {CUT_ANSWER} {sorted(EXACT)} {chain_share} {whole_exact} {most} {seed}".encode())
    path = cache / f"rows-{row_tokens}-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
        with corpus.open(encoding="utf-8") as lines:
            dialogues = [(row["intents"], pieces_of(row["messages"], row["intents"])) for row in map(json.loads, itertools.islice(lines, most))]
        packed = pack(encode(tokenizer, dialogues, row_tokens, joined_share, cut_share, chain_share, whole_exact, seed), row_tokens)
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, packed)
    return np.load(path, mmap_mode="r")
