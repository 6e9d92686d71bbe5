"""The secret that signs tokens: the configured one, else a random one that the project's processes share."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from hermes_async.adapters.state_folder import prepare
from hermes_async.domain.errors import ConfigError
from hermes_async.settings import Settings

FILE: Final = "relay.secret"


def relay_secret(settings: Settings) -> str:
    """Return the relay's secret, making one at first use.

    Raises:
        ConfigError: none is configured, and the state directory cannot keep one.
    """
    if settings.agents.relay.secret is not None:
        return settings.agents.relay.secret
    path = settings.state_dir / FILE
    try:
        return _read(path) or _made(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the relay's secret cannot be kept there ({error.strerror}); make the folder yours to "
            "write, or set `relay: {secret: ...}` in agents.yaml"
        ) from None


def known_secret(settings: Settings) -> str | None:
    """Return the relay's secret, or None when none is configured, and none was made yet."""
    with suppress(OSError):
        return settings.agents.relay.secret or _read(settings.state_dir / FILE)
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def _made(path: Path) -> str:
    """Make a secret, or return that of another process which was faster."""
    prepare(path.parent)
    draft = path.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    try:
        draft.write_text(f"{secrets.token_hex(32)}\n")
        with suppress(FileExistsError):
            os.link(draft, path)  # whole or not at all, and never over one that is in use
    finally:
        draft.unlink()
    return path.read_text().strip()
