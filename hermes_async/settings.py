"""Every setting of a process (command line, environment, agents.yaml), read here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from hermes_async.adapters import agents_file
from hermes_async.adapters.plugins import FOLDER, CallbackNames
from hermes_async.adapters.relay_place import running_relay
from hermes_async.adapters.tools import ToolNames, ToolOptions
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import ConfigError
from hermes_async.domain.urls import relay_url, service_url

DEFAULT_FILE: Final = "agents.yaml"
#: Variables that are settings themselves; every other HERMES_ variable overrides a scalar of agents.yaml.
VARIABLES: Final = frozenset(
    f"HERMES_{name}"
    for name in (
        *("CALLBACK_MODULES", "CALLBACK_TIMEOUT", "CONFIG", "FETCH_ALLOW", "GRACE", "LEASE", "LOG_FORMAT"),
        *("MODULES", "RELAY_URL", "RETENTION", "SEARXNG_URL", "STATE_DIR", "TOKEN", "WEBHOOK_ALLOW"),
    )
)


#: A name, an IPv4 address or an IPv6 address in brackets, and a port.
_PLACE = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\]):\d{1,5}", re.ASCII)


class Settings(BaseModel):
    """What a process was told: frozen, complete and checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The file that was read; None: there is none.
    config: Path | None
    #: The folder of the file, else the current one.
    project_dir: Path
    #: Home of the embedded Redis and of other private files (HERMES_STATE_DIR, default PROJECT/.hermes).
    state_dir: Path
    #: Python modules whose decorated functions are agents (HERMES_MODULES, separated by commas).
    modules: tuple[str, ...] = ()
    #: Modules and packages of which agents.yaml may name any function as a callback
    #: (HERMES_CALLBACK_MODULES, separated by commas).
    callback_modules: tuple[str, ...] = ()
    #: Seconds after which a call of a callback counts as failed (HERMES_CALLBACK_TIMEOUT).
    callback_timeout: float = Field(default=30.0, gt=0)
    agents: AgentsConfig = AgentsConfig()
    #: Seconds after which a silent worker has lost its task (HERMES_LEASE).
    lease: float = Field(default=15.0, gt=0)
    #: Seconds that running tasks have to end when their worker is told to stop; those that have not go on in
    #: another (HERMES_GRACE, default: as long as they take).
    grace: float | None = Field(default=None, gt=0)
    #: How the logs of workers, callbacks and relay are written: `text`, or `json`: one object a line
    #: (HERMES_LOG_FORMAT).
    log_format: Literal["text", "json"] = "text"
    #: Seconds for which the record of a finished task is kept (HERMES_RETENTION, default a week).
    retention: float = Field(default=604_800.0, gt=0)
    #: Shown to the relay (HERMES_TOKEN).
    token: str | None = Field(default=None, repr=False)
    #: Where clients find the relay (HERMES_RELAY_URL, default: where the project's own runs here, else the
    #: host and port of `relay:`).
    relay_url: str
    #: Whether the standard variables of OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT, ...) say where spans go.
    collects: bool = False
    #: `host:port` of webhook receivers that may be on private networks (HERMES_WEBHOOK_ALLOW, with commas).
    webhook_allow: frozenset[str] = frozenset()
    #: The SearXNG that the tool `web_search` asks (HERMES_SEARXNG_URL, default DuckDuckGo and Wikipedia).
    searxng_url: str | None = None
    #: `host:port` of servers on private networks that `web_fetch` may read (HERMES_FETCH_ALLOW, with commas).
    fetch_allow: frozenset[str] = frozenset()

    @classmethod
    def read(
        cls,
        config: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        *,
        known_agents: Collection[str] = (),
        **overrides: Any,
    ) -> Self:
        """Read everything once, or raise ConfigError; `overrides` win over the environment."""
        path, project, modules = locate(config, environ)
        allowed = _modules("HERMES_CALLBACK_MODULES", environ.get("HERMES_CALLBACK_MODULES", ""))
        agents = overrides.pop("agents", None) or agents_file.load(
            path,
            environ,
            reserved=VARIABLES,
            known_agents=known_agents,
            known_tools=ToolNames(),
            known_callbacks=CallbackNames(project / FOLDER, allowed),
        )
        said: dict[str, Any] = {
            "config": path,
            "project_dir": project,
            "state_dir": _folder(environ, project),
            "agents": agents,
            "modules": modules,
            "callback_modules": allowed,
            "collects": _collects(environ),
            **_from_environment(environ),
            **overrides,
        }
        if "relay_url" not in said:
            configured = relay_address(agents.relay.host, agents.relay.port)
            said["relay_url"] = running_relay(said["state_dir"]) or configured
        return cls(**said)

    @property
    def logs_json(self) -> bool:
        """Whether each line of a log is a JSON object."""
        return self.log_format == "json"

    @property
    def traces_dir(self) -> Path:
        """The folder in which `up --trace` keeps spans."""
        return self.state_dir / "traces"

    @property
    def callback_names(self) -> CallbackNames:
        """The names of all callbacks that agents.yaml may use here."""
        return CallbackNames(self.project_dir / FOLDER, self.callback_modules)

    @property
    def tool_names(self) -> ToolNames:
        """The names of all tools that agents.yaml may use here."""
        return ToolNames(ToolOptions(self.searxng_url, self.fetch_allow))


class Place(NamedTuple):
    """Where a project is, before its agents.yaml is read."""

    config: Path | None
    project_dir: Path
    modules: tuple[str, ...]


def locate(config: Path | None = None, environ: Mapping[str, str] = os.environ) -> Place:
    """Return where the project is, and the modules whose decorated agents its file may name."""
    path = _file(config, environ)
    modules = _modules("HERMES_MODULES", environ.get("HERMES_MODULES", ""))
    return Place(path, path.absolute().parent if path else Path.cwd(), modules)


def _file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read; only the default one may be missing."""
    if config is not None:
        return config
    if named := environ.get("HERMES_CONFIG"):
        return Path(named)
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else None


def file_above() -> Path | None:
    """Return the way to the nearest agents.yaml above the current folder, no higher than the home folder."""
    folders = [Path.cwd(), *Path.cwd().parents]
    home = Path(os.path.expanduser("~"))
    highest = folders.index(home) if home in folders else len(folders)
    for steps, folder in enumerate(folders[1 : highest + 1], start=1):
        if os.path.isfile(folder / DEFAULT_FILE):
            return Path(*[os.pardir] * steps, DEFAULT_FILE)
    return None


def _folder(environ: Mapping[str, str], project: Path) -> Path:
    named = environ.get("HERMES_STATE_DIR")
    return Path(named).absolute() if named else project / ".hermes"


def _collects(environ: Mapping[str, str]) -> bool:
    """Tell whether somebody wants spans; OpenTelemetry itself would send them to localhost, asked or not."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if named := environ.get("OTEL_TRACES_EXPORTER"):
        return named != "none"
    return any(environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT"))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that the environment gives; an empty variable gives none."""
    readers: dict[str, Callable[[str, str], Any]] = {
        "callback_timeout": _seconds,
        "fetch_allow": _places,
        "grace": _seconds,
        "lease": _seconds,
        "log_format": _log_format,
        "relay_url": partial(_url, relay_url),
        "retention": _seconds,
        "searxng_url": partial(_url, service_url),
        "token": _text,
        "webhook_allow": _places,
    }
    said: dict[str, Any] = {}
    for field, reader in readers.items():
        name = f"HERMES_{field.upper()}"
        if text := environ.get(name):
            said[field] = reader(name, text)
    return said


def _text(name: str, text: str) -> str:
    return text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 31_536_000:  # also refuses nan
        field = name.removeprefix("HERMES_").lower()
        raise ConfigError(f'{name}: {field} must be a number of seconds greater than 0, not "{text}"')
    return seconds


def _log_format(name: str, text: str) -> str:
    if text not in ("text", "json"):
        raise ConfigError(f'{name}: log_format is text or json, not "{text}"')
    return text


def _modules(name: str, text: str) -> tuple[str, ...]:
    modules = tuple(module for part in text.split(",") if (module := part.strip()))
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ConfigError(
                f'{name}: "{module}" is not a Python module; write names such as my_agents,lib.agents'
            )
    return modules


def _url(check: Callable[[str], str], name: str, text: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        field = name.removeprefix("HERMES_").lower()
        raise ConfigError(f"{name}: {field} {error}") from None


def _places(name: str, text: str) -> frozenset[str]:
    places = frozenset(place for part in text.split(",") if (place := part.strip().lower()))
    for place in places:
        if not _PLACE.fullmatch(place):
            raise ConfigError(
                f'{name}: "{place}" is not a host and a port; write some such as intranet.test:8080'
            )
    return places


def relay_address(host: str, port: int) -> str:
    """Return where a relay that listens there is reached from this machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
