"""HTML as Markdown, in one pass: a page is hostile, and must not cost more than its length.

Libraries for this walk recursively and search anew at each element; some pages keep them busy for hours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lxml.etree import HTMLParser, TreeBuilder, XMLSyntaxError, fromstring, iterwalk

from hermes_async.adapters.tools.blocks import Blocks

#: Of an encoding that was used already.
_DECLARATION: Final = re.compile(r"<\?xml[^>]*>")
#: Elements within each other; what is deeper is read as if it were not marked up.
_DEEPEST: Final = 250
#: Attributes that mean anything here.
_READ: Final = ("alt", "aria-hidden", "hidden", "href", "style")
#: Elements of which nothing is read.
_SKIPPED: Final = frozenset(
    (
        *("audio", "canvas", "head", "iframe", "math", "nav", "noscript", "object", "script", "select"),
        *("style", "svg", "template", "video"),
    )
)
#: Elements that begin and end a paragraph.
_BLOCKS: Final = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt"),
        *("fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
        *("hr", "html", "legend", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody"),
        *("tfoot", "thead", "tr", "ul"),
    )
)
#: Elements that mean more than that.
_KINDS: Final = {
    **{f"h{level}": "heading" for level in range(1, 7)},
    "ul": "list",
    "ol": "list",
    "li": "item",
    "blockquote": "quote",
    "pre": "pre",
    "a": "link",
    "br": "line",
    "hr": "rule",
    "tr": "row",
    "td": "cell",
    "th": "cell",
    "code": "code",
    "img": "image",
}


def markdown(html: str, url: str, most: int) -> str:
    """Return what a page says.

    Args:
        html: the page.
        url: where it is; its links are told in full.
        most: characters after which no more is read.
    """
    text = html.replace("\0", "").lstrip()
    declaration = _DECLARATION.match(text)
    try:
        root = fromstring(
            text[declaration.end() if declaration else 0 :],
            HTMLParser(target=_Tree(), remove_comments=True, remove_pis=True, no_network=True),
        )
    except (XMLSyntaxError, ValueError, AssertionError):  # nothing but markup
        return ""
    page = _Page(Blocks(url), most)
    page.title(root.findtext(".//title"))
    main = root.find(".//main")
    page.read(root if main is None else main)
    return page.blocks.text()[:most]


class _Tree(TreeBuilder):  # type: ignore[misc]
    """Keeps what is looked at: many attributes of one element, or great depth, would take ever longer."""

    _depth = 0

    def start(self, tag: str, attrs: Mapping[str, str], nsmap: Any = None) -> None:
        self._depth += 1
        if self._depth <= _DEEPEST:
            super().start(tag, {name: attrs[name] for name in _READ if name in attrs})

    def end(self, tag: str) -> None:
        self._depth -= 1
        if self._depth < _DEEPEST:
            super().end(tag)


class _Page:
    """Reads a tree from its first element to its last."""

    def __init__(self, blocks: Blocks, most: int) -> None:
        self.blocks = blocks
        self._most = most

    def title(self, text: str | None) -> None:
        """Say the title."""
        self.blocks.heading(1)
        self.blocks.say(text)
        self.blocks.end()
        self.blocks.marker = ""

    def read(self, root: Any) -> None:
        """Say all that is seen within an element."""
        walk = iterwalk(root, events=("start", "end"))
        for event, element in walk:
            if self.blocks.size > self._most:
                break
            is_read = not (element.tag in _SKIPPED or _is_hidden(element))
            if event == "start" and is_read:
                self._begin(element)
                self.blocks.say(element.text)
            elif event == "start":
                walk.skip_subtree()
            else:
                if is_read:
                    self._end(element)
                self.blocks.say(None if element is root else element.tail)
        self.blocks.end()

    def _begin(self, element: Any) -> None:
        if element.tag in _BLOCKS:
            self.blocks.end()
        kind = _KINDS.get(element.tag)
        if kind is not None:
            getattr(self, f"_begin_{kind}")(element)

    def _end(self, element: Any) -> None:
        kind = _KINDS.get(element.tag)
        if kind == "row":
            self.blocks.end_row()
        if element.tag in _BLOCKS:
            self.blocks.end()
        act = getattr(self, f"_end_{kind}", None)
        if act is not None:
            act()

    def _begin_heading(self, element: Any) -> None:
        self.blocks.heading(int(element.tag[1]))

    def _end_heading(self) -> None:
        self.blocks.marker = ""

    def _begin_list(self, element: Any) -> None:
        self.blocks.lists.append(1 if element.tag == "ol" else None)

    def _end_list(self) -> None:
        self.blocks.lists.pop()
        self.blocks.marker = ""

    def _begin_item(self, element: Any) -> None:
        self.blocks.item()

    def _end_item(self) -> None:
        self.blocks.marker = ""

    def _begin_quote(self, element: Any) -> None:
        self.blocks.quotes += 1

    def _end_quote(self) -> None:
        self.blocks.quotes -= 1

    def _begin_pre(self, element: Any) -> None:
        self.blocks.pre += 1

    def _end_pre(self) -> None:
        self.blocks.pre -= 1

    def _begin_link(self, element: Any) -> None:
        self.blocks.link(element.get("href"))

    def _end_link(self) -> None:
        self.blocks.end_link()

    def _begin_line(self, element: Any) -> None:
        self.blocks.end_line()

    def _begin_rule(self, element: Any) -> None:
        self.blocks.add("---")

    def _begin_row(self, element: Any) -> None:
        self.blocks.cells = 0

    def _begin_cell(self, element: Any) -> None:
        self.blocks.cell()

    def _begin_code(self, element: Any) -> None:
        self.blocks.code()

    def _end_code(self) -> None:
        self.blocks.code()

    def _begin_image(self, element: Any) -> None:
        self.blocks.say(element.get("alt"))


def _is_hidden(element: Any) -> bool:
    """Tell whether nobody sees an element; what is said there is said to machines."""
    style = (element.get("style") or "").replace(" ", "").lower()
    hidden = element.get("hidden") is not None or element.get("aria-hidden") == "true"
    return hidden or "display:none" in style or "visibility:hidden" in style
