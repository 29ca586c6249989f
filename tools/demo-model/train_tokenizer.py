"""A byte-level BPE of our own. `python train_tokenizer.py --corpus build/corpus.jsonl --out build/tokenizer.json`

Words are cut as Qwen 2 does (`tokenizer.ggml.pre = qwen2`): one digit is a word, a run of letters is a word. Japanese has no blanks, so that
a whole clause is one word; `max_token_length` keeps the pieces short (four kana or kanji), because a token that is a whole phrase of the
templates would never occur in a question of one's own.
"""

import argparse
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
END_OF_TEXT, START, END = SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def texts(corpus, limit):
    """Each text once, so that the few answers do not outweigh the many questions."""
    seen = set()
    with corpus.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number >= limit:
                return
            for message in json.loads(line)["messages"]:
                if message["content"] not in seen:
                    seen.add(message["content"])
                    yield f"{message['role']}\n{message['content']}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=pathlib.Path, default=HERE / "build" / "corpus.jsonl")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "build" / "tokenizer.json")
    parser.add_argument("--size", type=int, default=3072, help="entries, a multiple of 32")
    parser.add_argument("--dialogues", type=int, default=60_000, help="read this many of the corpus")
    args = parser.parse_args()
    if args.size % 32:
        parser.error("--size must be a multiple of 32")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=args.size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=14, show_progress=False,
    )
    tokenizer.train_from_iterator(texts(args.corpus, args.dialogues), trainer)
    if tokenizer.get_vocab_size() != args.size:
        parser.error(f"the corpus gives only {tokenizer.get_vocab_size()} entries; make it larger or --size smaller")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out))
    example = "How do I save this conversation? この会話を保存するには?"
    print(args.out, tokenizer.get_vocab_size(), tokenizer.encode(example).tokens)
    assert tokenizer.decode(tokenizer.encode(example).ids) == example


if __name__ == "__main__":
    main()
