"""The tool `web_fetch`: a page of the web as text, from where it may go, and no more than is bearable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from ssl import SSLContext
from typing import Final

from aiohttp import (
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from hermes_async.adapters.guarded import Errand, Lookup, Refused, connector, target
from hermes_async.adapters.tools import body
from hermes_async.adapters.tools.body import NotRead
from hermes_async.adapters.tools.markdown import markdown
from hermes_async.adapters.tools.options import ToolOptions
from hermes_async.core.threads import run_in_thread
from hermes_async.core.tool import Tool

#: Seconds from the first look at the DNS to the last byte, over all redirects.
TIMEOUT: Final = 25.0
#: Redirects that are followed.
HOPS: Final = 5
#: Characters of one answer, and of a page in all.
SHOWN: Final = 20_000
LONGEST: Final = 1_000_000

ERRAND: Final = Errand(
    word="web_fetch",
    schemes=("https", "http"),
    ports=(80, 443, 8080, 8443),
    variable="HERMES_FETCH_ALLOW",
    cure="give one such as https://example.com/page",
)
_ASKED: Final = {
    "user-agent": "hermes-async",
    "accept": "text/html, text/*;q=0.9, application/json;q=0.9, application/xml;q=0.8, */*;q=0.1",
    "accept-encoding": "gzip",
}


def make(options: ToolOptions) -> Tool:
    """Return the tool."""
    fetcher = Fetcher(options.fetch_allow)
    return Tool("web_fetch", fetcher.web_fetch, timeout=TIMEOUT + 10, max_chars=SHOWN + 1_000)


class Fetcher:
    """Reads pages.

    Args:
        allow: `host:port` of servers that may be on private networks.
        tls: what certificates are checked by; True: the system's authorities.
        timeout: seconds of one page.
        resolver: makes what looks names up.
    """

    def __init__(
        self,
        allow: Collection[str] = (),
        *,
        tls: SSLContext | bool = True,
        timeout: float = TIMEOUT,
        resolver: Callable[[], AbstractResolver] = Lookup,
    ) -> None:
        self._allow = allow
        self._tls = tls
        self._timeout = timeout
        self._resolver = resolver

    async def web_fetch(self, url: str, start: int = 0) -> str:
        """Read a page of the web, or a text, JSON or XML, and return it as Markdown.

        Args:
            url: the whole address, such as https://example.com/page.
            start: from which character on, to go on reading a long page.
        """
        try:
            async with asyncio.timeout(self._timeout) as limit:
                where, said = await self._followed(url)
        except Refused as refused:
            raise NotRead(str(refused)) from None
        except TimeoutError:
            if limit.expired():
                raise NotRead(f"{url[:200]} did not answer to the end within {self._timeout:g} s") from None
            raise
        return _shown(where, said, max(start, 0))

    async def _followed(self, url: str) -> tuple[str, str]:
        """Return where a page was found after all redirects, and what it says."""
        for _ in range(HOPS + 1):
            found = await self._visited(url)
            if not isinstance(found, URL):
                return url, found
            url = str(found)
        raise NotRead(f"it redirects more than {HOPS} times")

    async def _visited(self, url: str) -> str | URL:
        """Return what a page says, or to where it redirects; every hop is checked as if it were the first."""
        to = target(url, ERRAND, self._allow)
        session = ClientSession(
            connector=connector(to, self._resolver(), self._tls),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),  # of all hops together
            auto_decompress=False,
            trust_env=False,
        )
        async with session, session.get(to.url, headers=_ASKED, allow_redirects=False) as answer:
            if answer.status in (301, 302, 303, 307, 308):
                return to.url.join(URL(answer.headers.get("Location", "")))
            if answer.status != 200:
                raise NotRead(f"{to.url.host} answers {answer.status}")
            return await _read(answer, str(to.url))


async def _read(answer: ClientResponse, url: str) -> str:
    body.check(answer)
    found, is_whole = await body.read(answer)
    said = body.text(found, answer.charset)
    if body.is_html(answer):
        said = await run_in_thread(partial(markdown, said, url, LONGEST), "tool web_fetch")
    return (
        said[:LONGEST] if is_whole else f"{said[:LONGEST]}\n[the page is longer, and was not read to its end]"
    )


def _shown(url: str, said: str, start: int) -> str:
    if not said.strip():
        return f"{url}\n\n[the page has no text; it may need scripts to show any]"
    if start >= len(said):
        return f"{url}\n\n[the page ends before that, with character {len(said):,}]"
    part = said[start : start + SHOWN]
    end = start + len(part)
    more = (
        f"\n[characters {start:,} to {end:,} of {len(said):,}; go on with start={end}]"
        if end < len(said)
        else ""
    )
    return f"{url}\n\n{part}{more}"
