"""Tools by name: what is known without running anything, and what cannot be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hermes_async.adapters.agents_file import parse
from hermes_async.adapters.tools import ToolNames, load_tools
from hermes_async.adapters.tools.names import BUILT_IN, KIND
from hermes_async.core.tool import tool
from tests.support.plugins import installed, refusal

#: A module that runs nothing good when it is imported.
BROKEN = "1 / 0\n"


@tool(name="dearest", timeout=5, max_chars=100)
def decorated(items: list[str]) -> str:
    """Tell the dearest."""
    return max(items)


def plain(item: str) -> str:
    """Tell a price."""
    return item


def dearest(item: str) -> str:
    return item


def greedy(*items: str) -> str:
    return items[0]


not_a_function = 3


def test_names_are_known_without_running_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, KIND.group, from_package="no.such.module:function")
    names = ToolNames()
    assert list(names) == [*BUILT_IN, "from_package"]
    assert len(names) == len(BUILT_IN) + 1
    assert all(name in names for name in (*names, "any.module:function", "module:function"))
    assert not any(name in names for name in ("web_serch", "module.function", "a:b:c", "mod:1x", "", 3))


def test_our_own_are_loaded() -> None:
    loaded = load_tools(ToolNames(), BUILT_IN)
    assert [tool.name for tool in loaded.values()] == list(BUILT_IN)
    for each in loaded.values():
        assert each.description
        assert all(said["description"] for said in each.schema["properties"].values())


def test_a_function_and_a_decorated_one_by_their_places() -> None:
    here = __name__
    loaded = load_tools(ToolNames(), [f"{here}:plain", f"{here}:decorated"])
    assert [(tool.name, tool.timeout, tool.max_chars) for tool in loaded.values()] == [
        ("plain", 30.0, 20_000),
        ("dearest", 5, 100),
    ]


def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, KIND.group, price=f"{__name__}:plain", broken="no_such_module:f")
    assert load_tools(ToolNames(), ["price"])["price"].name == "price"
    message = refusal(lambda: load_tools(ToolNames(), ["broken"]))
    assert message.startswith("tool 'broken': cannot load no_such_module:f: No module named")


def test_a_package_that_is_really_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "pricing-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pricing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[hermes_async.tools]\nprice = pricing:price\nsad = pricing:sad\n"
    )
    (tmp_path / "pricing.py").write_text("def price(item: str) -> int:\n    return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [*ToolNames()] == [*BUILT_IN, "price", "sad"]
    assert load_tools(ToolNames(), ["price"])["price"].function("tea") == 3
    message = refusal(lambda: load_tools(ToolNames(), ["sad"]))
    assert message.startswith("tool 'sad' of pricing: cannot load pricing:sad: AttributeError")


def test_two_packages_that_bring_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, KIND.group, web_search="other:search")
    assert refusal(lambda: "x" in ToolNames()) == (
        "two packages bring a tool 'web_search': hermes_async.adapters.tools.web_search:make "
        "and other:search; uninstall one of the two"
    )


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_tools.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    here = __name__
    for name, message in {
        "web_serch": "no tool is named 'web_serch'; did you mean 'web_search'?",
        "xyz": "no tool is named 'xyz'; install the package that brings it, or write package.module:function",
        f"{here}:plainn": f"tool '{here}:plainn': module '{here}' has no 'plainn'; did you mean 'plain'?",
        "broken_tools:f": "tool 'broken_tools:f': cannot import 'broken_tools': "
        f"{tmp_path}/broken_tools.py:1: ZeroDivisionError: division by zero",
        f"{here}:not_a_function": "tool 'not_a_function' is not a function "
        f"(agents.yaml names it '{here}:not_a_function')",
        f"{here}:greedy": "tool 'greedy' cannot take *args, **kwargs or `/`: name its parameters "
        f"(agents.yaml names it '{here}:greedy')",
    }.items():
        assert refusal(lambda name=name: load_tools(ToolNames(), [name])) == message  # type: ignore[misc]


def test_two_tools_of_one_name() -> None:
    here = __name__
    assert refusal(lambda: load_tools(ToolNames(), [f"{here}:decorated", f"{here}:dearest"])) == (
        f"tools '{here}:decorated' and '{here}:dearest' are both called 'dearest'; "
        "give one another name with @tool(name=...)"
    )
    assert len(load_tools(ToolNames(), [f"{here}:plain", f"{here}:plain"])) == 1


@pytest.mark.parametrize(("tool", "package"), [("web_search", "ddgs"), ("arxiv_api", "arxiv")])
def test_without_the_extra_the_cure_is_told(tool: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [*sys.modules]:
        if module.startswith("hermes_async.adapters.tools."):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    message = refusal(lambda: load_tools(ToolNames(), [tool]))
    assert message == f"tool '{tool}' needs the package {package}; run `pip install 'hermes_async[llm]'`"


def test_an_unknown_tool_is_told_with_its_place() -> None:
    text = (
        "agents:\n  thinker:\n    model: gpt-4o-mini\n    tools: [arxiv_api, web_serch, 'my.tools:price']\n"
    )
    assert refusal(lambda: parse(text, "agents.yaml", {}, known_tools=ToolNames())) == (
        "agents.yaml:4:24: no tool is named 'web_serch'; did you mean 'web_search'?"
    )
