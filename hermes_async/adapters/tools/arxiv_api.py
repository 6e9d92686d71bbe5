"""The tool `arxiv_api`: papers of arXiv (package arxiv), asked as seldom as arXiv wants to be."""

from __future__ import annotations

from typing import Any, Final

import arxiv
from requests.adapters import HTTPAdapter

from hermes_async.adapters.tools.found import Found, amount, listed
from hermes_async.adapters.tools.options import ToolOptions
from hermes_async.adapters.tools.turns import Turns
from hermes_async.core.tool import Tool

#: Seconds of a call; those in which it waits for its turn; those of one request.
TIMEOUT: Final = 60.0
PATIENCE: Final = 35.0
ANSWER_WITHIN: Final = 15.0
#: Authors that are named.
_AUTHORS: Final = 5


class _Patient(HTTPAdapter):
    """Waits for a bounded time, as the package does not."""

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **said: Any) -> Any:
        return super().send(request, stream, timeout or ANSWER_WITHIN, *args, **said)


def _client() -> arxiv.Client:
    client = arxiv.Client(page_size=20, delay_seconds=3.0, num_retries=1)
    for scheme in ("https://", "http://"):
        client._session.mount(scheme, _Patient())
    return client


#: One for the process, used by one thread at a time: it waits 3 s between two requests, as arXiv's terms ask.
_CLIENT: Final = _client()
_TURNS: Final = Turns("arXiv (once in 3 s)", at_once=1)


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
    with _TURNS.taken(PATIENCE):
        papers = list(_CLIENT.results(search))
    return listed(query, map(_found, papers))


def _found(paper: arxiv.Result) -> Found:
    names = [author.name for author in paper.authors]
    authors = ", ".join(names[:_AUTHORS]) + (" and others" if len(names) > _AUTHORS else "")
    return Found(paper.title, paper.entry_id, f"{authors} ({paper.published:%Y-%m-%d}): {paper.summary}")
