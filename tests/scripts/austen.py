#!/usr/bin/env python3
"""The six novels of Jane Austen, which are in the public domain, out of the R package janeaustenr as Debian has it. Needs Python only.

usage: austen.py Rdata.rdb OUT.txt

    apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb austen
    python austen.py austen/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb austen.txt
"""
import pathlib
import re
import sys
import zlib

# An R character string: flags with type 9, length, bytes.
_STRING = re.compile(rb"\x00\x04\x00\x09(....)", re.DOTALL)


def lines(path):
    """The lines of all books, in order."""
    data = pathlib.Path(path).read_bytes()
    at, found = 0, []
    while at < len(data):
        # The length of what follows once inflated, then a zlib stream; the next one stands right behind it.
        stream = zlib.decompressobj()
        book = stream.decompress(data[at + 4:])
        at = len(data) - len(stream.unused_data)
        place = 0
        while match := _STRING.search(book, place):
            size = int.from_bytes(match[1], "big", signed=True)
            place = match.end() + max(size, 0)
            found.append(book[match.end():place].decode("utf-8", "replace"))
    return found


def text(path):
    """One paragraph a line; titles and chapter headings left out, emphasis unmarked."""
    paragraphs, words = [], []
    for line in [*lines(path), ""]:
        line = line.strip()
        if line:
            words += line.replace("_", "").replace("--", " - ").split()
            continue
        if words and words[-1][-1] in ".!?\"'" and not words[0].isupper() and len(words) > 5:
            paragraphs.append(" ".join(words))
        words = []
    return "\n".join(paragraphs) + "\n"


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).write_text(text(sys.argv[1]), encoding="utf-8")
