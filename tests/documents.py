"""Fenced blocks of the documents, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "deploy" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its fence."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        start: int | None = None
        for number, line in enumerate(lines):
            if not line.lstrip().startswith("```"):
                continue
            if start is None:
                start = number
            else:
                language = lines[start].strip().removeprefix("```")
                yield Block(page, start + 1, language, "\n".join(lines[start + 1 : number]))
                start = None
        assert start is None, f"{page}: a fence is not closed"


BLOCKS = list(_blocks())


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script, without comments, redirections and here-documents."""
    here_document: str | None = None
    for line in script.replace("\\\n", " ").splitlines():
        if here_document is not None:
            here_document = None if line.strip() == here_document else here_document
            continue
        if found := re.search(r"<<'?(\w+)'?", line):
            here_document = found[1]
            line = line[: found.start()]
        lexer = shlex.shlex(re.sub(r" \d>", " >", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("();<>|&"):
                if words:
                    yield words
                words = ["(redirection)"] if set(word) & set("<>") else []
            else:
                words.append(word)
        if words:
            yield words
