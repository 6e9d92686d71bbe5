"""Which lane a command line means, and which ones are refused."""

from __future__ import annotations

from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool

from hermes_async.domain.task import Lane
from hermes_async.worker.lanes import Refused, lane_of
from hermes_async.worker.pool import AsyncioPool


class GreenPool:
    """What gevent would bring."""


GreenPool.__module__ = "celery.concurrency.gevent"


@pytest.mark.parametrize(
    ("queues", "pool", "lane"),
    [
        (None, None, Lane.ASYNC),
        ("", None, Lane.ASYNC),
        ("hermes.process", None, Lane.PROCESS),
        (["hermes.process"], TaskPool, Lane.PROCESS),
        (None, TaskPool, Lane.PROCESS),
        (None, AsyncioPool, Lane.ASYNC),
        ("hermes.async", AsyncioPool, Lane.ASYNC),
    ],
)
def test_the_lane_that_is_meant(queues: Any, pool: Any, lane: Lane) -> None:
    assert lane_of(queues, pool) is lane


def test_a_worker_serves_the_queues_of_its_own_project() -> None:
    assert lane_of("shop.process", None, "shop") is Lane.PROCESS
    with pytest.raises(
        Refused, match=r"one of the queues shop\.async and shop\.process, not hermes\.process"
    ):
        lane_of("hermes.process", None, "shop")


@pytest.mark.parametrize(
    ("queues", "pool", "why"),
    [
        (None, ThreadPool, "the thread pool"),
        (None, SoloPool, "the solo pool"),
        (None, GreenPool, "the gevent pool"),
        (None, "eventlet", "leave --pool out"),
        ("hermes.async", TaskPool, "leave --pool out"),
        ("hermes.process", AsyncioPool, "leave --pool out"),
        ("celery", None, "not celery"),
        (["hermes.async", "hermes.process"], None, "one of the queues hermes.async and hermes.process"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_sentence(queues: Any, pool: Any, why: str) -> None:
    with pytest.raises(Refused) as refused:
        lane_of(queues, pool)
    sentence = str(refused.value)
    assert why in sentence
    assert sentence.startswith("hermes-async: ")
    assert "\n" not in sentence
