"""The blocks of a Markdown text, as they are said one after the other."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urljoin

#: Levels that are shown; a page can be nested deeper.
_DEEPEST: Final = 6
#: Columns of the line below a table's first row.
_WIDEST: Final = 100
#: Characters of a link; a longer one is left out.
_LONGEST_LINK: Final = 500
#: Within a block, where a line ends. No text of a page has it.
_BREAK: Final = "\0"


class _Link(NamedTuple):
    """A link that is open: where its text begins, and where it leads."""

    start: int
    href: str


class Blocks:
    """What was said so far: whole blocks, and the pieces of the one that is being said.

    Args:
        url: from which links are counted.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        #: None: no link is open, or its text was told already.
        self._link: _Link | None = None
        #: Stood the last block in a list?
        self._was_in_list = False
        #: The lists that are open, each with the number of its next item; None: it has none.
        self.lists: list[int | None] = []
        #: Quotations and preformatted texts that are open.
        self.quotes = self.pre = 0
        #: Of the item or heading that has begun and has said nothing yet.
        self.marker = ""
        #: Of the row that is being said.
        self.cells = 0
        #: Characters, roughly.
        self.size = 0

    def text(self) -> str:
        """Return all that was said."""
        return "".join(self._blocks).strip()

    def say(self, text: str | None) -> None:
        """Go on with the block."""
        if text:
            self._pieces.append(text.replace(_BREAK, ""))
            self.size += len(text)

    def end_line(self) -> None:
        """End the line, but not the block."""
        self._pieces.append(_BREAK)

    def heading(self, level: int) -> None:
        """Begin a heading."""
        self.marker = f"{'#' * level} "

    def item(self) -> None:
        """Begin an item of a list."""
        number = self.lists[-1] if self.lists else None
        self.marker = "- " if number is None else f"{number}. "
        if number is not None:
            self.lists[-1] = number + 1

    def code(self) -> None:
        """Begin or end code within a line."""
        if not self.pre:
            self._pieces.append("`")

    def cell(self) -> None:
        """Begin a cell of a row."""
        self._pieces.append(" | " if self.cells else "| ")
        self.cells += 1

    def end_row(self) -> None:
        """End a row; the first one of a table is underlined."""
        cells, self.cells = self.cells, 0
        if cells:
            is_first = not self._is_in_table
            self._pieces.append(" |")
            self.end()
            if is_first:
                self.add("| --- " * min(cells, _WIDEST) + "|")

    def link(self, href: str | None) -> None:
        """Begin a link."""
        self._link = _Link(len(self._pieces), href) if href and not self.pre else None

    def end_link(self) -> None:
        """End a link."""
        self._tell_link()
        self._link = None

    def end(self) -> None:
        """End the block, if anything was said."""
        self._tell_link()
        if self._link is not None:  # it begins with a block
            self._link = self._link._replace(start=0)
        said, self._pieces = "".join(self._pieces), []
        if self.pre:
            body = said.replace(_BREAK, "\n").strip("\n")
            lines = ["```", *body.split("\n"), "```"] if body.strip() else []
        else:
            lines = [line for each in said.split(_BREAK) if (line := " ".join(each.split()))]
        self.add("\n".join(lines))

    def add(self, text: str) -> None:
        """Add a block, as deep in lists and quotations as it stands."""
        if not text:
            return
        marker, self.marker = self.marker, ""
        depth = min(len(self.lists), _DEEPEST)
        indent = "> " * min(self.quotes, _DEEPEST) + "  " * (depth - 1 if marker and depth else depth)
        first, *rest = text.split("\n")
        lines = [f"{indent}{marker}{first}", *(f"{indent}{' ' * len(marker)}{line}" for line in rest)]
        is_tight = (depth and self._was_in_list) or (text.startswith("| ") and self._is_in_table)
        self._blocks += ["\n" if is_tight else "\n\n", "\n".join(lines)]
        self._was_in_list = bool(depth)
        self.size += len(indent) * len(lines)

    @property
    def _is_in_table(self) -> bool:
        return bool(self._blocks) and self._blocks[-1].startswith("| ")

    def _tell_link(self) -> None:
        """Make a link of what was said since it began, if anything was."""
        if self._link is None:
            return
        raw = "".join(self._pieces[self._link.start :]).replace(_BREAK, " ")
        said = " ".join(raw.split())
        if not said:
            return
        where = _address(self._url, self._link.href)
        if where is not None:
            before, after = (" " if one.isspace() else "" for one in (raw[0], raw[-1]))
            self._pieces[self._link.start :] = [f"{before}[{said}]({where}){after}"]
            self.size += len(where)
        self._link = None


def _address(base: str, href: str) -> str | None:
    """Return where a link leads, if that is a page that can be read and not a place on this one."""
    if href.startswith("#") or len(href) > _LONGEST_LINK:
        return None
    try:
        found = urljoin(base, href.strip())
    except ValueError:
        return None
    is_page = found.startswith(("https://", "http://")) and len(found) <= _LONGEST_LINK
    return found if is_page and not any(one.isspace() or one in "()<>" for one in found) else None
