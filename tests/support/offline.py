"""In a worker, this has the packages behind tools ask the web of `TEST_WEB`. Also tools that hang."""

from __future__ import annotations

import os
import time
from typing import Any

from ddgs.engines.duckduckgo import Duckduckgo
from ddgs.http_client import HttpClient

from hermes_async.adapters.tools import arxiv_api
from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import subagent
from hermes_async.core.tool import tool

WEB = os.environ.get("TEST_WEB", "http://127.0.0.1:1")
_request = HttpClient.request


def _asked_here(self: HttpClient, method: str, url: str, **said: Any) -> Any:
    return _request(self, method, url.replace("https://en.wikipedia.org", WEB), **said)


HttpClient.request = _asked_here  # type: ignore[method-assign, assignment]
Duckduckgo.search_url = f"{WEB}/html/"
arxiv_api._CLIENT.query_url_format = f"{WEB}/api/query?{{}}"


@subagent
async def process_id(ctx: TaskContext) -> int:
    """Tell which process this is."""
    return os.getpid()


@tool(timeout=0.5)
def stuck(ctx: TaskContext, number: int = 0) -> None:
    """Never answer."""
    ctx.progress(None, "stuck")
    time.sleep(3600)


@tool
def stuck_for_long(ctx: TaskContext) -> None:
    """Never answer, and have a long time for it."""
    ctx.progress(None, "stuck for long")
    time.sleep(3600)
