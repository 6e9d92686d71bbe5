"""What an error of Redis means for whoever has asked: that it is away, or that what it keeps is damaged."""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions as errors

from hermes_async.adapters.cures import cure
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable

#: Replies that do not depend on what was asked: "not now", or "not you". Those of a server that loads its
#: data, or wants a password, are errors of the connection for redis-py.
_AWAY: Final = (
    errors.ClusterDownError,
    errors.MasterDownError,
    errors.NoPermissionError,
    errors.NoScriptError,
    errors.OutOfMemoryError,
    errors.ReadOnlyError,
    errors.TryAgainError,
)
#: The same by their first word, for which redis-py has no class, or which an older server puts behind others
#: when a script was told so; and that it is too old, or forbids a command by renaming it.
_WORDS: Final = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
    r"|(?i:unknown (redis |sub)?command)"
)


def meaning(exc: Exception, where: str) -> Exception:
    """Return what an error that was the reply to one call means; one that is not Redis' stays what it is."""
    if isinstance(exc, errors.ResponseError) and not isinstance(exc, _AWAY) and not _WORDS.search(str(exc)):
        return StoreDamaged(f"Redis at {where} cannot do this ({exc}): what it keeps is damaged, or not ours")
    return unavailable(exc, where)


def unavailable(exc: Exception, where: str) -> Exception:
    """Return what an error means that does not depend on what was asked; one of ours stays what it is."""
    if not isinstance(exc, errors.RedisError | OSError):
        return exc
    said = f"({exc})".replace(".)", ")")
    if isinstance(exc, errors.AuthenticationError):
        return StoreUnavailable(f"Redis at {where} lets nobody in {said}{cure(where, said)}")
    if isinstance(exc, errors.ResponseError):
        return StoreUnavailable(f"Redis at {where} refuses to work {said}{cure(where, said, '')}")
    return StoreUnavailable(f"Redis at {where} does not work {said}{cure(where, said)}")
