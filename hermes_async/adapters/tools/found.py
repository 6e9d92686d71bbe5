"""What a search has found, as a model reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

#: Results of one search, at most.
MOST: Final = 20
#: Characters of what is shown of each.
SNIPPET: Final = 600


class Found(NamedTuple):
    """One result of a search."""

    title: str
    url: str
    snippet: str


def listed(query: str, found: Iterable[Found]) -> str:
    """Return results as numbered paragraphs."""
    shown = [
        f"{number}. {_line(each.title)}\n   {_line(each.url)}\n   {_line(each.snippet)[:SNIPPET]}".rstrip()
        for number, each in enumerate(found, start=1)
    ]
    return "\n".join(shown) or f"nothing was found for {query!r}; try other words"


def amount(max_results: int) -> int:
    """Return how many results to ask for, whatever a model wants."""
    return min(max(max_results, 1), MOST)


def _line(text: str) -> str:
    return " ".join(text.split())
