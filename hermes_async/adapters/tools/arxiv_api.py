"""The tool `arxiv_api`: papers of arXiv (package arxiv), asked as seldom as arXiv wants to be."""

from __future__ import annotations

import threading
from typing import Final

import arxiv

from hermes_async.adapters.tools.found import Found, amount, listed
from hermes_async.adapters.tools.options import ToolOptions
from hermes_async.core.tool import Tool

#: Seconds; several calls of one process wait for each other.
TIMEOUT: Final = 60.0

#: One for the process: it waits 3 s between two requests, as arXiv's terms ask.
_client: Final = arxiv.Client(page_size=20, delay_seconds=3.0, num_retries=1)
_turn: Final = threading.Lock()


def make(options: ToolOptions) -> Tool:
    """Return the tool."""
    return Tool("arxiv_api", arxiv_api, TIMEOUT)


def arxiv_api(query: str, max_results: int = 5) -> str:
    """Search arXiv for scientific papers, and return title, URL, authors, date and abstract of each.

    Args:
        query: words, or a query in arXiv's own form such as `au:turing AND ti:computable`.
        max_results: how many papers, from 1 to 20.
    """
    search = arxiv.Search(query, max_results=amount(max_results))
    with _turn:
        papers = list(_client.results(search))
    return listed(query, map(_found, papers))


def _found(paper: arxiv.Result) -> Found:
    authors = ", ".join(author.name for author in paper.authors[:5])
    more = " and others" if len(paper.authors) > 5 else ""
    return Found(
        paper.title, paper.entry_id, f"{authors}{more} ({paper.published:%Y-%m-%d}): {paper.summary}"
    )
