#!/usr/bin/env python3
"""Make the tokenizer of the bundled example: 256 tokens for bytes, whose ids are their values, and 256 for the pairs of tokens that a text has
most of, word by word. Needs Python only.

usage: make_tokenizer.py TEXT [OUT.json]       (default: examples/llama/tokenizer.json of this repository)

Byte-level tokenizers write bytes as characters that can be printed: those of Latin-1 that can be as themselves, the others,
in order, as the characters from U+0100 on.
"""
import collections
import json
import pathlib
import re
import sys

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = iter(range(0x100, 0x200))
CHARACTERS = {byte: chr(byte if byte in PRINTABLE else next(_OTHERS)) for byte in range(256)}

# Where the ByteLevel pre-tokenizer divides ASCII text: its own expression, without the classes of Unicode.
WORDS = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
MERGES = 256


def merges(text):
    """The pairs to be joined, in order: each time the one that there is most of, the first in the alphabet among equals."""
    counts = collections.Counter(WORDS.findall(text))
    words = [([CHARACTERS[b] for b in word.encode()], n) for word, n in sorted(counts.items())]
    found = []
    while len(found) < MERGES:
        pairs = collections.Counter()
        for parts, n in words:
            for pair in zip(parts, parts[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        for parts, _ in words:
            at = 0
            while at + 1 < len(parts):
                if (parts[at], parts[at + 1]) == best:
                    parts[at:at + 2] = ["".join(best)]
                at += 1
    return found


def tokenizer(text):
    """The whole of tokenizer.json."""
    joined = merges(text)
    vocabulary = {character: byte for byte, character in CHARACTERS.items()}
    vocabulary.update({"".join(pair): 256 + i for i, pair in enumerate(joined)})
    bytes_as_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": bytes_as_text,
        "post_processor": None,
        "decoder": bytes_as_text,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
                  "merges": [" ".join(pair) for pair in joined]},
    }


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "examples" / "llama" / "tokenizer.json"
    made = tokenizer(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    out.write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
