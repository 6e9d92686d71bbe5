"""A search over DuckDuckGo and Wikipedia (package ddgs), without a key."""

from __future__ import annotations

from typing import Final

from ddgs import DDGS
from ddgs.exceptions import DDGSException

from hermes_async.adapters.tools.found import Found, amount, listed
from hermes_async.adapters.tools.turns import Turns
from hermes_async.domain.errors import ToolFailed

#: Its other engines are left out: some scrape what forbids it, and one looks for pirated books.
BACKENDS: Final = "duckduckgo,wikipedia"
#: Seconds for one engine; seconds of waiting for a turn.
TIMEOUT: Final = 10
PATIENCE: Final = 15.0
#: Searches of one process at once: whoever searches as a crowd is refused.
AT_ONCE: Final = 4
#: How ddgs says that it has found nothing.
_NOTHING: Final = "No results found."

_TURNS: Final = Turns("DuckDuckGo and Wikipedia", AT_ONCE)


def web_search(query: str, max_results: int = 5) -> str:
    """Search the web, and return title, URL and a few lines of each result.

    Args:
        query: what to look for, in a few words.
        max_results: how many results, from 1 to 20.
    """
    most = amount(max_results)
    try:
        with _TURNS.taken(PATIENCE):
            found = DDGS(timeout=TIMEOUT).text(query, backend=BACKENDS, max_results=most)
    except DDGSException as error:
        if str(error) != _NOTHING:
            raise
        raise ToolFailed(
            f"DuckDuckGo and Wikipedia give nothing for {query[:100]!r}; try other words (they say "
            "the same when they are asked too often)"
        ) from None
    return listed(query, (Found(each["title"], each["href"], each["body"]) for each in found))
