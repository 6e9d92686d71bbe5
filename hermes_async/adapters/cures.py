"""What may mend a server that does not work, by what it, or the attempt to reach it, has said."""

from __future__ import annotations

import re
from typing import Final

#: The first that is found in the scheme of the URL and what was said is the cure. Redis begins with a word in
#: capitals, which redis-py leaves out where it has a class for the error.
_CURES: Final = (
    (r"(Hostname|IP address) mismatch|not valid for", "does its URL name it as its certificate does?"),
    (r"CERTIFICATE_VERIFY_FAILED", "who has signed its certificate? add ?ssl_ca_certs=FILE to its URL"),
    (
        r"(?i)certificate.required|alert.(bad.certificate|unknown.ca)",
        "it wants to know us: add ?ssl_certfile=FILE&ssl_keyfile=FILE to its URL",
    ),
    (
        r"X509|PEM lib|^rediss.*Error (2|13) connecting",
        "are there the right files: ssl_ca_certs, ssl_certfile, ssl_keyfile in its URL?",
    ),
    (
        r"^rediss.*(SSL|_ssl|reset by|closed|lost|pipe|Timeout connecting)",
        "is it running, does it speak TLS at this port, and does it want a certificate (ssl_certfile)?",
    ),
    (
        r"^redis\b.*(reset by|closed|lost|pipe)",
        "is it running and reachable, and not over TLS only (rediss://)?",
    ),
    (
        r"WRONGPASS|NOAUTH|Authentication|username-password|ACCESS_REFUSED",
        "are user and password in its URL right, and odd characters percent-encoded?",
    ),
    (r"NOPERM|no permissions", "give its user the permissions that docs/redis.md lists"),
    (r"READONLY|read only replica|MASTER is down", "it is a replica: name its master in the URL"),
    (r"OOM|maxmemory", "its memory is full: raise its maxmemory"),
    (r"MISCONF", "it cannot save to its disk: see its log"),
    (r"LOADING|[Ll]oading the dataset", "it works when it has read its data"),
    (r"\bBUSY\b", "a script holds it up: wait, or end that with SCRIPT KILL"),
    (r"max number of clients", "raise its maxclients"),
    (r"CLUSTERDOWN|MOVED|CROSSSLOT", "name a single server: limits cannot be kept over a cluster"),
    (r"(?i)unknown.*command", "it must be Redis 6.2 or newer, or Valkey, with no command renamed"),
    (r"(?i)name or service|name resolution|nodename", "is the name of its host right?"),
)


def cure(where: str, said: str, otherwise: str = "is it running and reachable?") -> str:
    """Return `; ` and a question, or an order, to whoever runs the server.

    Args:
        where: its URL, of which the scheme matters.
        said: the text of the error.
        otherwise: the cure of what nobody knows; empty: there is none.
    """
    text = f"{where.partition(':')[0]} {said}"
    found = next((cure for pattern, cure in _CURES if re.search(pattern, text)), otherwise)
    return f"; {found}" if found else ""
