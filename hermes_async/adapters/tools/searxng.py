"""A search over a SearXNG, which must allow the format `json` (`search.formats` in its settings)."""

from __future__ import annotations

import json
from typing import Any, Final

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar

from hermes_async.adapters.tools import body
from hermes_async.adapters.tools.found import Found, amount, listed
from hermes_async.domain.errors import ToolFailed

#: Seconds.
TIMEOUT: Final = 15.0


class Searxng:
    """Asks one SearXNG.

    Args:
        url: where it is, with or without `/search`.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/').removesuffix('/search')}/search"

    async def web_search(self, query: str, max_results: int = 5) -> str:
        """Search the web, and return title, URL and a few lines of each result.

        Args:
            query: what to look for, in a few words.
            max_results: how many results, from 1 to 20.
        """
        results = (await self._asked(query)).get("results") or []
        return listed(query, map(_found, results[: amount(max_results)]))

    async def _asked(self, query: str) -> Any:
        session = ClientSession(
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=TIMEOUT),
            headers={"accept": "application/json", "accept-encoding": "gzip"},
            auto_decompress=False,
        )
        asked = {"q": query, "format": "json"}
        async with session, session.get(self._url, params=asked, allow_redirects=False) as answer:
            if answer.status == 403:
                raise ToolFailed("the SearXNG answers 403: add `json` to `search.formats` in its settings")
            if answer.status != 200:
                raise ToolFailed(f"the SearXNG answers {answer.status}")
            body.check(answer)
            found, _ = await body.read(answer)
        return json.loads(found)


def _found(each: dict[str, Any]) -> Found:
    return Found(*(str(each.get(key) or "") for key in ("title", "url", "content")))
