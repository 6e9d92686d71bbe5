"""The dashboard, the alerts and the scrape: every query asks for metrics and labels that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hermes_async.core.ledger import Backlog
from hermes_async.core.metrics import metrics
from hermes_async.core.ports import Traffic
from hermes_async.relay.http.metrics import page
from tests.support.documents import tables
from tests.support.servers import ROOT
from tests.test_docs import COUNTS, METRICS

FOLDER = ROOT / "examples/monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: Words of PromQL that look like labels.
GIVEN = {"instance", "job"}


def queries() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    yield from (alert["expr"] for alert in ALERTS)
    yield DASHBOARD["templating"]["list"][1]["query"]["query"]


QUERIES = list(queries())


def known() -> dict[str, set[str]]:
    """Every name that a query may ask for, with its labels."""
    shown = page(metrics({}, open={}, oldest=None), Traffic({}, {}), Backlog(), dict.fromkeys(COUNTS, 0))
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)", shown, re.M))
    rows = [row for _, header, rows in tables(METRICS) if header[0] == "metric" for row in rows]
    labels = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}
    found = {}
    for name, kind in types.items():
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        for ending in endings:
            found[name + ending] = labels[name] | ({"le"} if ending == "_bucket" else set())
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_and_labels_that_there_are(query: str) -> None:
    names = set(re.findall(r"\b(?:hermes|process)_\w+", query))
    assert names
    assert names <= known().keys()
    has = set.union(*(known()[name] for name in names)) | GIVEN
    asked = {
        label for group in re.findall(r"(?:by|without) \(([^)]*)\)", query) for label in group.split(", ")
    }
    asked |= set(re.findall(r"[{,]\s*(\w+)(?:=|!=|=~)\"", query))
    assert asked <= has


def test_every_metric_of_tasks_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"\bhermes_\w+", " ".join(QUERIES)))
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known()}
    left = {name for name in base if not any(each.startswith(name) for each in shown)}
    assert left == {
        *("hermes_swept_total", "hermes_callers"),
        *("process_cpu_seconds_total", "process_resident_memory_bytes"),
    }


def test_panels_have_ids_of_their_own_and_do_not_lie_upon_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        places = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not places & taken, panel["title"]
        assert max(x for x, _ in places) < 24
        taken |= places


def test_legends_name_labels_that_their_query_keeps() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                kept = re.search(rf"by \([^)]*\b{label}\b", target["expr"]) or "by (" not in target["expr"]
                assert kept, panel["title"]


def test_an_alert_says_what_is_wrong() -> None:
    for alert in ALERTS:
        assert alert["annotations"]["summary"].endswith((".", "--dead."))
        assert alert["alert"].startswith("Hermes")


def test_prometheus_asks_where_the_relay_answers() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"] == {"credentials_file": "hermes.token"}
    assert config["rule_files"] == ["alerts.yml"]
    assert "127.0.0.1:8765" in job["static_configs"][0]["targets"]
