"""The body of an answer: what it may be, how much of it is read, and which text it is."""

from __future__ import annotations

import codecs
import re
import zlib
from typing import Final

from aiohttp import ClientResponse

from hermes_async.domain.errors import ToolFailed

#: Bytes that are read, as they come and when they are unpacked.
LONGEST: Final = 2_000_000
#: Types beside `text/*` that are text.
_TEXTS: Final = re.compile(
    r"text/.+|application/(json|xml|xhtml\+xml|javascript|yaml)|application/.+\+(json|xml)"
)
_HTML: Final = ("text/html", "application/xhtml+xml")
#: Encodings that web pages have. Python knows others, some of which take for ever.
_ENCODINGS: Final = re.compile(
    r"utf-(8|8-sig|16|16-le|16-be|32)|ascii|iso8859-\d+|cp(125\d|866|932|949|950)|koi8-[rut]|mac-roman"
    r"|gb(2312|k|18030)|big5(hkscs)?|shift_jis|euc_(jp|kr)|iso2022_jp"
)
_DECLARED: Final = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w-]{1,40})""", re.IGNORECASE)
_MARKS: Final = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class NotRead(ToolFailed):
    """The answer is nothing that is read; the message says why."""


def check(answer: ClientResponse) -> None:
    """Raise NotRead unless an answer is a text that can be unpacked."""
    kind = answer.content_type
    if kind == "application/pdf":
        raise NotRead("it is a PDF, which is not read; look for a page with its text or abstract")
    if not _TEXTS.fullmatch(kind):
        raise NotRead(f"it is of type {kind[:100]!r}; only text, HTML, JSON and XML are read")
    if _packing(answer) not in ("", "identity", "gzip"):
        raise NotRead(f"it is packed as {_packing(answer)[:100]!r}, although that was not asked for")


def is_html(answer: ClientResponse) -> bool:
    """Tell whether an answer is a page."""
    return answer.content_type in _HTML


async def read(answer: ClientResponse) -> tuple[bytes, bool]:
    """Return the beginning of a body, and whether that is all of it.

    Raises:
        NotRead: it is not packed as it says.
    """
    unpacking = None if _packing(answer) in ("", "identity") else zlib.decompressobj(wbits=31)
    found, received = bytearray(), 0
    async for chunk in answer.content.iter_any():
        received += len(chunk)
        try:
            found += unpacking.decompress(chunk, LONGEST + 1 - len(found)) if unpacking else chunk
        except zlib.error:
            raise NotRead("it is not packed as it says") from None
        if len(found) > LONGEST or received > LONGEST:
            return bytes(found[:LONGEST]), False
    return bytes(found), True


def text(body: bytes, charset: str | None) -> str:
    """Return a body as text: by its mark, by what the server says, by what it says itself, or as UTF-8."""
    declared = _DECLARED.search(body[:2_048])
    said = (charset, declared[1].decode() if declared else None)
    marked = next((name for mark, name in _MARKS.items() if body.startswith(mark)), None)
    encoding = marked or next(filter(None, map(_known, said)), "utf-8")
    return body.decode(encoding, "replace").replace("\0", "")


def _packing(answer: ClientResponse) -> str:
    return answer.headers.get("Content-Encoding", "").strip().lower()


def _known(name: str | None) -> str | None:
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    return found if _ENCODINGS.fullmatch(found) else None
