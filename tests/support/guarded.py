"""Servers that not everybody may talk to: over TLS, and with a user who may do no more than is documented."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import redis

from tests.support.servers import ROOT, RedisServer, needed, redis_binary

#: Every sign that a URL may take for one of its own.
PASSWORD = "@:/?#[]%;+&= %40!$'é"
USER, DATABASE = "hermes-agent", 5


class TlsServer(RedisServer):
    """A Redis that speaks TLS only, with certificates of its own.

    Args:
        folder: for its files.
        knows_us: whether it wants a certificate of its clients.
        options: further ones.
    """

    def __init__(self, folder: Path, *options: str, knows_us: bool = True, aof: bool = False) -> None:
        super().__init__(folder, *options, aof=aof)
        self.certificates = folder / "certificates"
        self._knows_us = knows_us
        self._options += [
            *("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "yes" if knows_us else "no"),
            *("--tls-ca-cert-file", self.file("ca.pem")),
            *("--tls-cert-file", self.file("server.pem"), "--tls-key-file", self.file("server.key")),
        ]

    @property
    def place(self) -> str:
        """The URL without what makes it work."""
        return f"rediss://127.0.0.1:{self.port}/0"

    @property
    def url(self) -> str:
        ours = {"ssl_certfile": self.file("client.pem"), "ssl_keyfile": self.file("client.key")}
        query = {"ssl_ca_certs": self.file("ca.pem"), **(ours if self._knows_us else {})}
        return f"{self.place}?{urlencode(query, safe='/')}"

    @property
    def broker(self) -> str:
        return self.url.replace("rediss://", "redisstreams://")

    def file(self, name: str) -> str:
        """Where one of the certificates, or a key, is."""
        return str(self.certificates / name)

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True, **options)

    def start(self) -> TlsServer:
        if not self.certificates.exists():
            make_certificates(self.certificates)
        speaks_tls(needed(redis_binary())) or pytest.skip("this Redis was built without TLS")
        super().start()
        return self


@cache
def speaks_tls(binary: str) -> bool:
    """Tell whether a server was built with TLS; one that was not knows none of its options."""
    command = [binary, "--port", "0", "--tls-auth-clients", "no", "--tls-port", "-1"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return "argument must be between" in said.stdout + said.stderr


def make_certificates(folder: Path) -> None:
    """Make `ca.pem`, and certificates with keys of a server on this machine and of a client."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder.mkdir(parents=True)
    new = "req -newkey rsa:2048 -nodes"
    _openssl(folder, f"{new} -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        _openssl(folder, f"{new} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        signed = f"-in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names"
        _openssl(folder, f"x509 -req {signed} -out {name}.pem")


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


class RestrictedServer(RedisServer):
    """A Redis with a user who has the permissions that docs/redis.md lists, and a password full of traps.

    Args:
        folder: for its files.
        by_socket: whether its URL is that of its socket.
        lists: whether the user may have what Celery's lists need, too.
        aof: whether it keeps what it has when it is started again.
    """

    def __init__(
        self, folder: Path, *, by_socket: bool = False, lists: bool = False, aof: bool = False
    ) -> None:
        super().__init__(folder, aof=aof)
        self._by_socket = by_socket
        self._more = " ~unacked*" if lists else ""
        self._options += ["--aclfile", str(folder / "users.acl"), "--unixsocket", str(folder / "redis.sock")]

    @property
    def url(self) -> str:
        return self.url_of(by_socket=self._by_socket)

    def url_of(self, *, by_socket: bool) -> str:
        """Return the URL of its socket or of its port."""
        login = f"{USER}:{quote(PASSWORD, safe='')}"
        if by_socket:
            return f"unix://{login}@{self.folder}/redis.sock?db={DATABASE}"
        return f"redis://{login}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> RestrictedServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        secret = sha256(PASSWORD.encode()).hexdigest()
        users = f"user default on nopass ~* &* +@all\nuser {USER} on #{secret} {permissions()}{self._more}\n"
        (self.folder / "users.acl").write_text(users)
        super().start()
        return self

    def denied(self) -> list[Any]:
        """What was refused since the start."""
        with self.client() as client:
            return list(client.acl_log())


def permissions() -> str:
    """The rule that docs/redis.md gives, for `ACL SETUSER`, in our database."""
    text = (ROOT / "docs" / "redis.md").read_text()
    found = re.search(r"ACL SETUSER \S+ on >\S+ \\\n(.+?)\n```", text, re.DOTALL)
    assert found, "docs/redis.md has no rule"
    return " ".join(found[1].replace("\\\n", " ").replace("&/0.", f"&/{DATABASE}.").split())
