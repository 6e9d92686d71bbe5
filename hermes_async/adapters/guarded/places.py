"""Where one may go: to public servers and to what is allowed by name, whatever a URL or the DNS says."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from yarl import URL

from hermes_async.adapters.guarded.addresses import is_address, is_public

#: What C libraries read as an IPv4 address, though it is not written like one: 127.1, 0x7f000001, 0177.0.0.1.
_ODD: Final = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$", re.ASCII | re.IGNORECASE)


class Refused(Exception):
    """Nobody goes there; the message says why, and what can be done."""


@dataclass(frozen=True)
class Errand:
    """What one goes out for, and where to for that.

    Args:
        word: how sentences call it, such as "a webhook".
        schemes: what may be spoken.
        ports: of public servers.
        variable: has the list of the allowed: `host:port` of servers that may be on private networks, on any
            port, and may be spoken to without TLS.
        cure: what to do about a URL that is none, or names a user.
    """

    word: str
    schemes: tuple[str, ...]
    ports: tuple[int, ...]
    variable: str
    cure: str


@dataclass(frozen=True)
class Target:
    """Where to go, checked as far as that can be done without a look at the DNS."""

    url: URL
    errand: Errand
    #: Its host and port are on the list of the allowed: any address will do.
    allowed: bool


def target(text: str, errand: Errand, allow: Collection[str]) -> Target:
    """Check a URL.

    Args:
        text: the URL.
        errand: what it is for.
        allow: the list of the allowed.

    Raises:
        Refused: nobody may go there.
    """
    try:
        url = URL(text)
        place = f"{url.host_subcomponent}:{url.port}"
    except Exception:  # yarl lets through more than its ValueError
        url, place = URL(), ""
    if not url.raw_host:
        raise Refused(f"{errand.word} goes to a whole URL, which this is not; {errand.cure}")
    if url.raw_user is not None or url.raw_password is not None:
        raise Refused(f"{errand.word} goes to no URL that names a user; {errand.cure}")
    if place in allow and url.scheme in ("https", "http"):
        return Target(url, errand, allowed=True)
    _check(url, place, errand)
    return Target(url, errand, allowed=False)


def _check(url: URL, place: str, errand: Errand) -> None:
    or_allowed = f"or to a server that {errand.variable} names ({place})"
    if url.scheme not in errand.schemes:
        speaks = " or ".join(f"{scheme}://" for scheme in errand.schemes)
        raise Refused(f"{errand.word} goes over {speaks}, {or_allowed}")
    if url.port not in errand.ports:
        ports = " or ".join(map(str, errand.ports))
        raise Refused(f"{errand.word} goes to port {ports}, {or_allowed}")
    host = url.raw_host or ""
    if is_address(host):
        check_address(host, place, errand)
    elif _ODD.search(host):
        raise Refused(f"{place} is an address in disguise; write a name, or the plain address")


def check_address(address: str, place: str, errand: Errand) -> None:
    """Raise Refused unless the address is a public one; `place` is the `host:port` that led to it."""
    if not is_public(address):
        raise Refused(
            f"{place} is at {address}, which is no public address; if it is yours, "
            f"put {place} into {errand.variable}"
        )
