"""What the YAML parser's complaints mean to somebody who wrote the file."""

from __future__ import annotations

import yaml

_MISFIT = "this does not fit the lines above; check the indentation and the quotes"
_BLOCK_TEXT = "nothing may follow `|` or `>` on its line; begin the text on the next line"
_OPEN_QUOTE = "a quote is opened and never closed; close it"
_ESCAPE = "an unknown `\\` escape in double quotes; double the backslash, or use single quotes"

#: A part of the parser's complaint (of libyaml or of the Python parser) -> our sentence, at the same place.
_AT_THE_PROBLEM = {
    "tab character where an indentation": "a tab cannot indent YAML; use spaces",
    "mapping values are not allowed": "`:` is not expected here; check the indentation and the quotes",
    "sequence entries are not allowed": "a list cannot begin on the line of its key; begin it on a new line",
    "find expected key": _MISFIT,
    "expected <block end>": _MISFIT,
    "expected '-' indicator": "this does not fit the list above; begin the line with `- `, or indent it anew",
    "expected node content": "a value is missing here; delete this character, or put the text in quotes",
    "could not find expected ':'": "a key without `:`; write `key: value`",
    "comment or line break": _BLOCK_TEXT,
    "chomping or indentation": _BLOCK_TEXT,
    "unknown directive": "`%` begins a directive; put the text in quotes",
    "incompatible YAML document": "the version of YAML is not 1.x; delete the %YAML line",
    "document start": "this does not belong to the lines above; check the indentation, and delete any `...`",
}
#: The same for complaints that are clearer where the unfinished thing began.
_AT_THE_BEGINNING = {
    "unexpected end of stream": _OPEN_QUOTE,
    "unexpected document": _OPEN_QUOTE,
    "',' or ']'": "a `[` is opened and not closed, or a comma is missing; close it with `]`",
    "',' or '}'": "a `{` is opened and not closed, or a comma is missing; close it with `}`",
    "unknown escape": _ESCAPE,
    "expected escape sequence": _ESCAPE,
    "hexdecimal": _ESCAPE,
}


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[yaml.Mark, str]:
    """Return the place and the sentence for a complaint of the parser."""
    problem = error.problem or ""
    mark = error.problem_mark
    assert mark is not None
    if "cannot start any token" in problem:
        return mark, _bad_beginning(text, mark)
    for part, sentence in _AT_THE_PROBLEM.items():
        if part in problem:
            return mark, sentence
    for part, sentence in _AT_THE_BEGINNING.items():
        if part in problem:
            return error.context_mark or mark, sentence
    return mark, f"this is not YAML: {problem}; put the text in quotes"


def _bad_beginning(text: str, mark: yaml.Mark) -> str:
    lines = text.splitlines()
    character = lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""
    if character == "\t":
        return "a tab cannot indent YAML; use spaces"
    return f"text cannot begin with '{character}'; put it in quotes"
