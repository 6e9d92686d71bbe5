"""Pages as Markdown: what is seen of them, and at what cost."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_async.adapters.tools.markdown import markdown

PAGE = """\
<!doctype html><html><head><title>Tea &amp;
 more</title><style>x{}</style></head><body><nav><a href=/>home</a></nav>
<main><h1>Tea</h1><p>It is <b>hot</b>, see <a href="/wiki/Cup?x=1#y">the  cup</a>, or<br>not.
<ul><li>green<li>black <ul><li>assam</li><li>ceylon <code>x = 1</code></li></ul></li></ul><p>after</p>
<ol><li><p>one</p><p>more of one</p></li><li>two</li></ol>
<pre>def f():
    return 1
</pre><blockquote>said<p>twice</p></blockquote>
<table><tr><th>a<th>b</tr><tr><td>1<td>2</td></tr><tr><td>3<td><a href="https://x.test/">4</a></td></tr></table>
<a href="card"><h3>Card</h3><p>teaser</p></a><hr><img src=x alt="a cup">
<a href="javascript:x()">script</a> <a href="#x">here</a> <a href="mailto:x@y.test">mail</a>
</main><footer>not main</footer><script>alert(1)</script></body></html>"""

TEXT = """\
# Tea & more

# Tea

It is hot, see [the cup](https://tea.test/wiki/Cup?x=1#y), or
not.

- green
- black
  - assam
  - ceylon `x = 1`

after

1. one
  more of one
2. two

```
def f():
    return 1
```

> said

> twice

| a | b |
| --- | --- |
| 1 | 2 |
| 3 | [4](https://x.test/) |

### [Card](https://tea.test/a/card)

teaser

---

a cup script here mail"""

N = 200_000
#: Each has kept some converter of HTML busy for minutes, or has ended its process.
COSTLY = {
    "spaces": f"<p>a{' ' * N}b",
    "entities of spaces": f"<p>a{'&#32;' * N}b",
    "different attributes": f"<p {' '.join(f'a{n}=1' for n in range(N))}>x",
    "deep": "<div>" * N,
    "deep in a line": "<b>" * N,
    "lists in lists": "<ul><li>x" * N,
    "quotations": "<blockquote>x" * N,
    "backticks": f"<pre>{'`' * N}",
    "newlines": f"<ul><li><pre>x{chr(10) * N}x",
    "comments": "<!--" * N,
    "less than": "<" * N,
    "items": f"<ol>{'<li>a' * N}",
    "cells": f"<table><tr>{'<td>' * N}",
    "rows": f"<table><thead>{'<tr><td>a' * (N // 4)}",
    "wide": "<table><tr>" + "<td colspan=1000>a" * (N // 4),
    "links": "<a href=a>b</a>" * (N // 4),
    "links in links": "<a href=x>" * N,
    "lines": f"<p>{'<br>x' * N}",
    "attributes": f"<p {'a=1 ' * N}>x",
    "number": f"<ol start={'9' * N}><li>x",
}


def test_a_page() -> None:
    assert markdown(PAGE, "https://tea.test/a/b", 10_000) == TEXT


def test_what_nobody_sees_is_not_read() -> None:
    hidden = (
        "<p>seen<p hidden>x<p aria-hidden=true>x<p style='display: none'>x<p style='VISIBILITY:HIDDEN'>x"
        "<!-- x --><template>x</template><noscript>x</noscript><svg><text>x</text></svg>"
        "<p><span hidden>x</span>too"
    )
    assert markdown(hidden, "https://t.test/", 10_000) == "seen\n\ntoo"


@pytest.mark.parametrize(
    "html", ["", " ", "<!-- -->", "<?xml version='1.0'?>", "\x00", "<html></html>", "<title></title>"]
)
def test_pages_that_say_nothing(html: str) -> None:
    assert markdown(html, "https://t.test/", 10_000) == ""


def test_xhtml_with_a_declaration() -> None:
    assert (
        markdown(
            '<?xml version="1.0" encoding="utf-8"?><html><body><p>é</p></body></html>', "https://t.test/", 99
        )
        == "é"
    )


def test_no_more_is_said_than_is_wanted() -> None:
    assert len(markdown("<p>word</p>" * 10_000, "https://t.test/", 1_000)) == 1_000


@pytest.mark.parametrize("html", COSTLY.values(), ids=COSTLY)
def test_no_page_costs_more_than_its_length(html: str) -> None:
    began = time.process_time()
    said = markdown(html, f"https://t.test/{'x' * 300}/", 1_000_000)
    assert time.process_time() - began < 8  # most take a tenth of a second; a quadratic one takes minutes
    assert len(said) <= 1_000_000


TAGS = (
    *(
        "a",
        "b",
        "blockquote",
        "body",
        "br",
        "code",
        "div",
        "h1",
        "hr",
        "html",
        "img",
        "li",
        "main",
        "ol",
        "p",
    ),
    *("pre", "script", "select", "table", "td", "th", "title", "tr", "ul"),
)


@settings(deadline=None, database=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from([f"<{t}>" for t in TAGS] + [f"</{t}>" for t in TAGS])
        | st.text(max_size=5)
        | st.just("<a href=x>"),
        max_size=60,
    )
)
def test_whatever_a_page_is_it_becomes_text(pieces: list[str]) -> None:
    said = markdown("".join(pieces), "https://t.test/", 10_000)
    assert "\0" not in said
    assert said == said.strip()
