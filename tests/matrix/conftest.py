"""pytest-celery's fixtures over a matrix of brokers and lanes, with processes where it expects containers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import docker
import pytest
from pytest_celery import CeleryTestSetup
from pytest_docker_tools import container

from hermes_async.bootstrap import connect
from hermes_async.core.handle import TaskHandle
from hermes_async.core.session import Session
from hermes_async.domain.task import Lane
from hermes_async.domain.urls import is_rabbitmq
from hermes_async.settings import Settings
from tests.support import asking
from tests.support.engine import why_not
from tests.support.guarded import RestrictedServer, TlsServer
from tests.support.nodes import (
    Broker,
    ContainerOfRabbitMQ,
    ContainerOfRedis,
    ProcessNode,
    RedisNode,
    Setup,
    VirtualHostNode,
    Worker,
    WorkerNode,
)
from tests.support.rabbitmq import virtual_host
from tests.support.servers import RedisServer, bundled_binary, needed

AGENTS = Path(__file__).with_name("agents.yaml")
#: Seconds after which a killed worker's task begins again.
LEASE = 1.0


class Cell(NamedTuple):
    """One field of the matrix."""

    #: The fixture of its broker.
    broker: str
    lane: Lane

    def __str__(self) -> str:
        return f"{self.broker}-{self.lane}"


#: Brokers that are ours to restart and keep their messages meanwhile.
DURABLE = ("streams", "lists", "valkey", "tls", "tls_lists", "restricted", "restricted_lists")
#: What is needed for those that are containers.
IMAGES = {
    "default_redis_broker": ContainerOfRedis.image(),
    "default_rabbitmq_broker": ContainerOfRabbitMQ.image(),
}
BROKERS = (*DURABLE, "rabbitmq", "default_redis_broker", "default_rabbitmq_broker")


def cells(*brokers: str) -> list[Cell]:
    """Every lane over each of the brokers."""
    return [Cell(broker, lane) for broker in brokers for lane in Lane]


@pytest.fixture(scope="package", params=cells(*BROKERS), ids=str)
def cell(request: pytest.FixtureRequest) -> Cell:
    """One parameter, so that what a cell has started serves all its tests before the next cell's begin."""
    return Cell(*request.param)


# -- brokers ---------------------------------------------------------------------------------------------
def running(node: ProcessNode) -> Iterator[Any]:
    """The body of a fixture."""
    try:
        node.ready()
        yield node
    finally:
        node.stop()


def running_redis(server: RedisServer, behind: str = "") -> Iterator[RedisNode]:
    """The same for a server that remembers its messages when it is started again."""
    yield from running(RedisNode(server, behind))


@pytest.fixture(scope="package")
def place(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cell's broker."""
    return tmp_path_factory.mktemp(cell.broker)


@pytest.fixture(scope="package")
def streams(place: Path) -> Iterator[RedisNode]:
    """Redis, over our own transport."""
    yield from running_redis(RedisServer(place, aof=True))


@pytest.fixture(scope="package")
def lists(place: Path) -> Iterator[RedisNode]:
    """Redis, over kombu's stock transport."""
    yield from running_redis(RedisServer(place, aof=True), "+list")


@pytest.fixture(scope="package")
def valkey(place: Path) -> Iterator[RedisNode]:
    """The bundled server, over our own transport."""
    yield from running_redis(RedisServer(place, aof=True, binary=needed(bundled_binary())))


@pytest.fixture(scope="package")
def tls(place: Path) -> Iterator[RedisNode]:
    """Redis over TLS, where both sides show a certificate."""
    yield from running_redis(TlsServer(place, aof=True))


@pytest.fixture(scope="package")
def tls_lists(place: Path) -> Iterator[RedisNode]:
    """The same over kombu's stock transport."""
    yield from running_redis(TlsServer(place, aof=True), "+list")


@pytest.fixture(scope="package")
def restricted(place: Path) -> Iterator[RedisNode]:
    """Another database of Redis, over its socket, for a user with the documented permissions."""
    yield from running_restricted(RestrictedServer(place, by_socket=True, aof=True))


@pytest.fixture(scope="package")
def restricted_lists(place: Path) -> Iterator[RedisNode]:
    """The same over TCP and kombu's stock transport."""
    yield from running_restricted(RestrictedServer(place, lists=True, aof=True), "+list")


def running_restricted(server: RestrictedServer, behind: str = "") -> Iterator[RedisNode]:
    """The body of a fixture; at its end, nobody has ever tried more than is documented."""
    for node in running_redis(server, behind):
        yield node
        assert server.denied() == []


@pytest.fixture(scope="package")
def rabbitmq() -> Iterator[VirtualHostNode]:
    """RabbitMQ as it runs here."""
    with virtual_host() as url:
        yield VirtualHostNode(url)


def container_of(image: type[ContainerOfRedis | ContainerOfRabbitMQ], **options: Any) -> Any:
    """One of pytest-celery's own brokers, for all tests of a cell."""
    return container(
        image=image.image(),
        ports=image.ports(),
        environment=image.initial_env(),
        wrapper_class=image,
        timeout=120,
        scope="package",
        **options,
    )


# A function, for of a list `container` would drop the empty arguments.
default_redis_broker = container_of(ContainerOfRedis, command=lambda: ContainerOfRedis.command())
default_rabbitmq_broker = container_of(ContainerOfRabbitMQ)


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """What pytest-celery's containers are started with, closed at the end."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="package")
def broker_node(cell: Cell, request: pytest.FixtureRequest) -> Any:
    """The cell's broker, a process or a container; an engine without its image is none, in CI as well."""
    if (image := IMAGES.get(cell.broker)) and (reason := why_not(image)):
        pytest.skip(reason)
    return request.getfixturevalue(cell.broker)


@pytest.fixture
def celery_broker(broker_node: Any) -> Broker:
    return Broker(broker_node)


@pytest.fixture
def celery_backend_cluster() -> None:
    """There is no result backend: results are in the record."""


# -- workers ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="package")
def environment(broker_node: Any, redis_server: RedisServer) -> dict[str, str]:
    """What makes a process one of the cell's."""
    queue = broker_node.celeryconfig["host_url"]
    state = {"HERMES_STATE": redis_server.url} if is_rabbitmq(queue) else {}
    said = {"HERMES_CONFIG": str(AGENTS), "HERMES_TASK_QUEUE": queue}
    return {**said, **state, "HERMES_LEASE": str(LEASE)}


@pytest.fixture(scope="package")
def default_worker_container(
    cell: Cell, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerNode]:
    """The cell's worker; what a test has killed, the next one starts again."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    yield from running(WorkerNode(cell.lane, environment, log))


@pytest.fixture
def default_worker_cls() -> type[Worker]:
    return Worker


@pytest.fixture
def celery_worker(celery_setup_worker: Worker) -> Worker:
    if celery_setup_worker.container.status == "exited":
        celery_setup_worker.restart()
    return celery_setup_worker


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    return Setup


# -- the parent ------------------------------------------------------------------------------------------
class Parent:
    """A chat that delegates to the agents of the cell's lane."""

    def __init__(self, session: Session, lane: Lane, folder: Path) -> None:
        self.session = session
        self._lane = lane
        self._file = folder / "let-go"

    async def echo(self, text: str, priority: int | None = None) -> TaskHandle[str]:
        """Dispatch a task that ends as soon as it runs, and wait until the broker has it."""
        handle = await self.session.submit(f"{self._lane}_echo", {"text": text}, priority=priority)
        await self.session._journal._publisher.close()
        return handle

    async def hold(self) -> TaskHandle[int]:
        """Dispatch a task that keeps the worker's only slot, and wait until it has it."""
        handle = await self.session.dispatch(f"{self._lane}_hold", str(self._file))
        await asking.running(handle)
        return handle

    def let_go(self) -> None:
        """Let the tasks end that keep a slot."""
        self._file.touch()


@pytest.fixture
async def parent(
    cell: Cell, environment: dict[str, str], tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Parent]:
    async with connect(Settings.read(environ=environment)) as hermes:
        parent = Parent(hermes.session(f"chat-{uuid4().hex}", parent="parent_agent"), cell.lane, tmp_path)
        yield parent
        parent.let_go()  # whatever a test that failed has left there
