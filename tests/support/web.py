"""The web on this machine: DuckDuckGo, Wikipedia, arXiv and a SearXNG, as their real answers look."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.support.servers import ROOT

CORPUS = ROOT / "tests/corpus/web"
DUCKDUCKGO = (CORPUS / "duckduckgo.html").read_text()

OPENSEARCH = ["tea", ["Tea"], [""], ["https://en.wikipedia.org/wiki/Tea"]]
EXTRACT = {
    "query": {"pages": {"30003": {"pageid": 30003, "ns": 0, "title": "Tea", "extract": "Tea is a beverage."}}}
}

SEARXNG = {
    "query": "tea",
    "number_of_results": 0,
    "results": [
        {
            "url": f"https://tea{number}.example/",
            "title": f"Tea {number}",
            "content": "About tea.",
            "engine": "duckduckgo",
            "parsed_url": ["https", f"tea{number}.example", "/", "", "", ""],
            "template": "default.html",
            "engines": ["duckduckgo"],
            "positions": [number],
            "score": 1.0 / number,
            "category": "general",
        }
        for number in range(1, 31)
    ],
    "answers": [],
    "corrections": [],
    "infoboxes": [],
    "suggestions": ["green tea"],
    "unresponsive_engines": [["brave", "timeout"]],
}

ATOM = (CORPUS / "arxiv.atom").read_text()
#: What arXiv says when it finds nothing.
NO_PAPERS = ATOM[: ATOM.index("  <entry>")].replace("Results>1<", "Results>0<") + "</feed>"


class Asked(NamedTuple):
    """One request, as it came."""

    method: str
    path: str
    values: dict[str, str]
    at: float


@dataclass
class Web:
    """Answers by path: with a status, a type and a text; the longest path that fits counts."""

    routes: dict[str, tuple[int, str, str]]
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    #: Is called before each answer.
    pause: Callable[[], Any] = lambda: None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.place}"

    def answer(self, path: str, said: str, kind: str = "text/html", status: int = 200) -> None:
        self.routes[path] = (status, kind, said)

    def to(self, path: str) -> list[Asked]:
        return [each for each in self.asked if each.path.startswith(path)]

    def found(self, path: str) -> tuple[int, str, str]:
        fitting = [each for each in self.routes if path.startswith(each)]
        return self.routes[max(fitting, key=len)] if fitting else (404, "text/plain", "nothing here")


@contextmanager
def web() -> Iterator[Web]:
    """Serve it on a free port of this machine."""
    served = Web(
        {
            "/html/": (200, "text/html; charset=UTF-8", DUCKDUCKGO),
            "/w/api.php?action=opensearch": (200, "application/json", json.dumps(OPENSEARCH)),
            "/w/api.php?action=query": (200, "application/json", json.dumps(EXTRACT)),
            "/search": (200, "application/json", json.dumps(SEARXNG)),
            "/api/query": (200, "application/atom+xml", ATOM),
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="web")
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(served: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["content-length"])).decode())

        def _answer(self, posted: str) -> None:
            given = parse_qs(posted or urlsplit(self.path).query, keep_blank_values=True)
            values = {name: said[0] for name, said in given.items()}
            served.asked.append(Asked(self.command, self.path, values, time.monotonic()))
            served.pause()
            status, kind, said = served.found(self.path)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(said.encode())))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
