#!/usr/bin/env python3
"""Make the tokenizer of the bundled example: every byte is a token, whose id is its value; no merges. Needs Python only.

usage: make_tokenizer.py [OUT.json]       (default: examples/llama/tokenizer.json of this repository)

Byte-level tokenizers write bytes as characters that can be printed: those of Latin-1 that can be as themselves, the others,
in order, as the characters from U+0100 on.
"""
import json
import pathlib
import sys

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "examples" / "llama" / "tokenizer.json"
    others = iter(range(0x100, 0x200))
    vocabulary = {chr(byte if byte in PRINTABLE else next(others)): byte for byte in range(256)}
    bytes_as_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": bytes_as_text,
        "post_processor": None,
        "decoder": bytes_as_text,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": []},
    }
    out.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
