"""Words and sentences out of technical prose: splitting, light stemming, telling prose from code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_SILENT = """
a about all also am an and any are as at be been but by can could did do does doing each for from get gets
give had has have how i if in into is it its just let may me might more most my no not of on one only or
other our should so some such tell than that the their them then there these they this those to too up us
use used uses using very want was way we were what when where which while who why will with work works would
you your analyse analyze describe explain find investigate please research show summarise summarize
"""
STOP_WORDS = frozenset(_SILENT.split())

# What programmers write short in names and long in prose.
_LONG_FORMS = {
    "ack": "acknowledge",
    "acks": "acknowledge",
    "arg": "argument",
    "args": "argument",
    "async": "asynchronous",
    "conf": "configuration",
    "config": "configuration",
    "conn": "connection",
    "db": "database",
    "msg": "message",
    "param": "parameter",
    "params": "parameter",
    "repr": "representation",
}

# Harman's S-stemmer (1991) and the endings that relate "acknowledged" to "acknowledgment": longest first.
_LONG_ENDINGS = "ization ations ements ation ement ments ising izing ized ment ions"
_SHORT_ENDINGS = "ings ing ers ion ies ed er es ly s e y"
_ENDINGS = tuple(f"{_LONG_ENDINGS} {_SHORT_ENDINGS}".split())
_SHORTEST_STEM = 3
_LONGEST_WORD = 50

_WORD = re.compile(r"[^\W\d_]+|\d+")
# What an address is made of is not said of anything. Bounded, so that no text makes the search slow.
_ADDRESS = re.compile(r"\b\w{2,8}://\S+|\b[\w.+-]{1,64}@[\w-]+\.\w+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_FENCE = re.compile(r"^\s*(```|~~~)")
_UNDERLINE = re.compile(r"^\s*([=\-~^\"'#*+.`])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"^\s*\.\. (\w[\w-]*)::|^\s*\.\. ")
_CODE_DIRECTIVES = frozenset({"code", "code-block", "sourcecode", "parsed-literal", "image", "figure"})
_NOT_PROSE = re.compile(r"^\s*(>>>|\.\.\. |\||\+[-=]|#!|\$ |!\[|\[!\[|<)")
_STARTS_ITEM = re.compile(r"^\s*([*+-]|\d+[.)])\s|^\s*:\w[^:]*:\s|^\s*\*{0,2}\w+( \([^)]*\))?:\s")
_BULLET = re.compile(r"^\s*([*+-]|\d+[.)])\s+")

_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)[\"')]*\s+(?=[A-Z`\"'(*\[])")
_MARKUP = (
    (re.compile(r"^:(?:param|arg|keyword|type|raises?|i?var|cvar)\b(?: [\w., |]+)?[ ](\w+):"), r"\1:"),
    (re.compile(r"^:returns?:"), "Returns"),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),
    (re.compile(r":[\w:.+-]+:`~(?:[\w.]*\.)?(\w+)[^`]*`"), r"\1"),
    (re.compile(r":[\w:.+-]+:`([^`<]+?)(?: <[^>]*>)?`"), r"\1"),
    (re.compile(r"`([^`<]+?) <[^>]*>`__?"), r"\1"),
    (re.compile(r"`{1,2}([^`]+)`{1,2}_?"), r"\1"),
    (re.compile(r"\*\*(\S[^*]*)\*\*|(?<!\w)\*(\S[^*]*\S)\*(?!\w)"), r"\1\2"),
    (re.compile(r"<[^>]+>|\\(?=[\w*])"), ""),
    (re.compile(r"\s+"), " "),
)
_NOT_SAID_ALOUD = (" = ", "://", "().", "{", "->", " in #")  # code, and the last one: changelogs
_FEWEST_WORDS, _MOST_WORDS = 5, 60
_LEAST_LETTERS = 0.7


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Reduce a lower-case word to the part that its relatives share."""
    word = _LONG_FORMS.get(word, word)
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM and not word.endswith("ss"):
            # "messages" and "message" must meet: what is left after a plural may end in an e of its own.
            return word[: -len(ending)].removesuffix("e")
    return word


def words(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case; `taskAcksLate` and `task_acks_late` are three words each."""
    for match in _WORD.findall(text):
        if match.islower():
            yield match
        else:
            yield from _CAMEL.sub(" ", match).lower().split()


def terms(text: str) -> list[str]:
    """Return what a text is searched by: the stems of its words."""
    return [stem(word) for word in telling_words(text)]


def telling_words(text: str) -> list[str]:
    """Return the words of a text without those that say nothing, and without addresses."""
    return [word for word in words(_ADDRESS.sub(" ", text)) if is_telling(word)]


def is_telling(word: str) -> bool:
    """Whether a word is worth searching for: no single letter, no silent word, no line noise."""
    return 1 < len(word) <= _LONGEST_WORD and word not in STOP_WORDS


def sentences(text: str) -> list[str]:
    """Return the sentences of a docstring or README, without code, headings, tables and markup."""
    found: list[str] = []
    for paragraph in _paragraphs(text):
        plain = plain_text(_BULLET.sub("", paragraph))
        found += [_finished(sentence) for sentence in _SENTENCE_END.split(plain) if _is_prose(sentence)]
    return found


def plain_text(text: str) -> str:
    """Take the reStructuredText and Markdown markup off a line."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()


def _finished(sentence: str) -> str:
    return sentence if sentence[-1] in ".!?" else f"{sentence.rstrip(',;')}."


def _paragraphs(text: str) -> Iterator[str]:
    """Yield lines that belong together, joined."""
    lines: list[str] = []
    for line in _prose_lines(text):
        if lines and (not line or _STARTS_ITEM.match(line)):
            yield " ".join(lines)
            lines = []
        if line:
            lines.append(line.strip())
    if lines:
        yield " ".join(lines)


def _prose_lines(text: str) -> Iterator[str]:
    """Yield the lines outside of code, an empty one wherever something was left out."""
    code_above: int | None = None  # the indentation of what introduced the code, while inside it
    fenced = False
    lines = text.split("\n")
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        indent = len(line) - len(line.lstrip())
        if _FENCE.match(line):
            fenced = not fenced
        if code_above is not None and line.strip() and indent <= code_above:
            code_above = None
        in_code = fenced or code_above is not None
        if not in_code and _introduces_code(line):
            code_above = indent
        yield "" if in_code or _is_furniture(line, below) else line.rstrip()


def _introduces_code(line: str) -> bool:
    directive = _DIRECTIVE.match(line)
    if directive:
        return directive[1] is None or directive[1] in _CODE_DIRECTIVES
    return line.rstrip().endswith("::")


def _is_furniture(line: str, below: str) -> bool:
    """Tell headings, tables, prompts and directives from prose."""
    is_heading = _UNDERLINE.match(line) or _UNDERLINE.match(below) or line.lstrip().startswith("#")
    is_label = line.rstrip().endswith(":") and len(line.split()) <= 2
    is_other = _FENCE.match(line) or _DIRECTIVE.match(line) or _NOT_PROSE.match(line)
    return bool(is_heading or is_label or is_other)


def _is_prose(sentence: str) -> bool:
    count = len(sentence.split())
    if not _FEWEST_WORDS <= count <= _MOST_WORDS:
        return False
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    is_code = any(mark in sentence for mark in _NOT_SAID_ALOUD) or sentence.endswith(":")
    return not is_code and letters >= _LEAST_LETTERS * len(sentence)
