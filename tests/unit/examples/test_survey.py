"""The survey counts what is there, finds the known cycle, and never imports what it reads."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.cycles import strongly_connected
from examples.survey import SurveyReport, survey, survey_package

from .conftest import MakePackage
from .recorder import Recorder

SAMPLE = {
    "__init__.py": '"""Documented."""\nfrom PACKAGE.one import first\nraise RuntimeError("imported!")\n',
    "one.py": '''
        from .sub import two
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from . import alone

        def first(a: int, *, b: str = "") -> int:
            """Documented."""
            def inner(x):
                return x
            return inner(a)

        class Thing:
            def __init__(self, size: int):
                self._size = size

            @property
            def size(self) -> int:
                """Documented."""
                return self._size

            @size.setter
            def size(self, value: int) -> None:
                self._size = value
        ''',
    "sub/__init__.py": "",
    "sub/two.py": "from .. import three\n",
    "three.py": "try:\n    import PACKAGE.one as one\nexcept ImportError:\n    one = None\n",
    "alone.py": "def late():\n    from PACKAGE import one\n    return one\n",
    "broken.py": "def (:\n",
    "_hidden.py": "SLOPPY = '\\d'\ndef undocumented(): ...\n",
}


@pytest.fixture
def sample(make_package: MakePackage) -> str:
    return make_package(SAMPLE)


@pytest.fixture
def report(sample: str) -> SurveyReport:
    return survey.function(Recorder(), sample)


def test_counts(report: SurveyReport) -> None:
    assert (report.files, report.functions, report.classes) == (8, 7, 1)
    assert report.lines == sum(1 + text.count("\n") for text in SAMPLE.values()) - len(SAMPLE)


def test_the_largest_function_comes_first(report: SurveyReport, sample: str) -> None:
    first = report.largest[0]
    assert (first.name, first.lines) == (f"{sample}.one.first", 5)
    assert first.location == f"{sample}/one.py:7"
    assert f"{sample}.one.first.inner" in [function.name for function in report.largest]


def test_the_one_cycle_is_found_and_only_what_runs_at_import_counts(
    report: SurveyReport, sample: str
) -> None:
    one, two, three = f"{sample}.one", f"{sample}.sub.two", f"{sample}.three"
    assert [cycle.modules for cycle in report.cycles] == [[one, two, three]]
    assert report.cycles[0].shortest == [one, two, three, one]


def test_documentation_counts_public_names_once(report: SurveyReport) -> None:
    # 6 public modules that parse, first, Thing, Thing.size (its setter is not a second name), late
    assert (report.documentation.count, report.documentation.total) == (3, 10)
    assert report.documentation.share == 0.3


def test_annotations(report: SurveyReport) -> None:
    # first, __init__ and both size; not inner, late and undocumented
    assert (report.annotations.count, report.annotations.total) == (4, 7)


def test_what_does_not_parse_is_listed(report: SurveyReport, sample: str) -> None:
    assert report.unparsed == [f"{sample}/broken.py"]
    assert f"{sample}/broken.py" in report.summary


def test_the_package_is_not_imported(report: SurveyReport) -> None:
    assert report.package not in sys.modules


def test_the_report_survives_json(report: SurveyReport) -> None:
    assert SurveyReport.model_validate_json(report.model_dump_json()) == report


def test_a_real_package_with_progress_and_partials() -> None:
    told = Recorder()
    report = survey_package("celery", told.progress, told.partial, top=3)
    told.assert_went_to_100()
    assert len(told.told) > 20 and any("celery/app/base.py" in message for _, message in told.told)
    assert [name for name, _ in told.partials][-1] == "summary"
    assert all(len(value) == 3 for name, value in told.partials if name == "largest")
    assert report.functions > 2_000 and report.unparsed == []
    sizes = [function.lines for function in report.largest]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
    assert report.summary.startswith(f"celery {report.version}: ")
    assert 2 <= len(report.summary.splitlines()) <= 4


def test_a_module_of_one_file() -> None:
    assert survey.function(Recorder(), "argparse").files == 1


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("selery", "celery"), ("celery.app", "celery"), ("PyYAML", "yaml"), ("python-socketio", "socketio")],
)
def test_an_unknown_package_names_the_nearest(name: str, nearest: str) -> None:
    message = f"no package named {name!r} is installed here; did you mean {nearest!r}?"
    with pytest.raises(ValueError) as caught:
        survey.function(Recorder(), name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["", "xqzw", "../etc"])
def test_an_unknown_package_without_a_neighbour(name: str) -> None:
    with pytest.raises(ValueError, match=r"no package named .* is installed here$"):
        survey.function(Recorder(), name)


def test_a_package_without_source() -> None:
    with pytest.raises(ValueError, match="has no Python source"):
        survey.function(Recorder(), "sys")


graphs = st.dictionaries(st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("abcdefgh"))).map(
    lambda graph: {node: graph.get(node, frozenset()) for node in "abcdefgh"}
)


@given(graphs)
def test_components_are_the_sets_of_nodes_that_reach_each_other(graph: dict[str, frozenset[str]]) -> None:
    def reach(node: str) -> set[str]:
        seen, left = {node}, [node]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    expected = {frozenset(other for other in reach(node) if node in reach(other)) for node in graph}
    assert {frozenset(component) for component in strongly_connected(graph)} == expected


def test_a_chain_longer_than_the_recursion_limit() -> None:
    nodes = [str(number) for number in range(5_000)]
    graph = {one: {other} for one, other in pairwise([*nodes, nodes[0]])}
    assert [len(component) for component in strongly_connected(graph)] == [5_000]
