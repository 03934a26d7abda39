"""Whom to measure: the server's URL, the model asked for, and what must go into every request's headers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "x-request-id"})
_API = "/v1"
# The end of a path that is the whole base of an OpenAI API: a version, at Google and others with what comes after it.
_API_BASE = re.compile(r"/(v\d+(?:(?:alpha|beta)\d*)?(?:/openai)?)$")


class TargetError(ValueError):
    """The target cannot be measured as it was given; the message names what was found and the fix."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens.

    base_path: what comes before the OpenAI API in the URL, without a slash at its end. api: what follows it then: ``/v1``,
    unless the URL itself ends in a version (``/v3``, ``/v1beta/openai``).
    """

    host: str
    port: int
    tls: bool
    base_path: str
    api: str = _API

    @property
    def api_path(self) -> str:
        """Where the OpenAI API is: what an OpenAI client is given as the path of its base URL."""
        return self.base_path + self.api

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """``http://host:port[/base][/v1]`` as an address; raises ``TargetError`` naming what is wrong with it."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.username is not None or parts.password is not None:  # Not to be shown either.
        raise TargetError(
            f"url: a user name or password stands before {parts.hostname!r}, and requests would go without it; leave it out (a "
            "server's key goes with --api-key)"
        )
    if parts.scheme not in _DEFAULT_PORTS:
        raise TargetError(f"url: found scheme {parts.scheme!r} in {url!r}; use http:// or https://")
    try:
        port = parts.port
    except ValueError as error:
        raise TargetError(f"url: the port in {url!r} is not a number from 0 to 65535") from error
    if not parts.hostname:
        raise TargetError(f"url: {url!r} names no host; write it as http://HOST:PORT")
    if parts.query or parts.fragment:
        raise TargetError(f"url: {url!r} has a query or a fragment; give the base URL of the server only")
    path = parts.path.rstrip("/")
    found = _API_BASE.search(path)
    base_path, api = (path[: found.start()], f"/{found[1]}") if found else (path, _API)
    return Address(parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https", base_path.rstrip("/"), api)


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible server and the model asked of it.

    headers: sent with every request, over the ones made here. tls_verify: False accepts any certificate.
    Raises ``TargetError`` for a URL or a header that cannot be used.
    """

    url: str
    model: str = ""
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    tls_verify: bool = True

    def __post_init__(self) -> None:
        parse_address(self.url)
        lines = dict(self.headers)
        if self.api_key is not None:
            lines["api_key"] = self.api_key
        for name, value in lines.items():
            if name.lower() in _OWN_HEADERS:
                raise TargetError(f"headers: {name!r} is set by the client itself; leave it out")
            if any(mark in f"{name}{value}" for mark in "\r\n\0") or not f"{name}{value}".isascii():
                raise TargetError(f"headers: {name!r} holds a line break or a non-ASCII character; remove it")

    @property
    def address(self) -> Address:
        """The parsed URL."""
        return parse_address(self.url)

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS settings for ``https``, ``None`` for ``http``."""
        if not self.address.tls:
            return None
        context = ssl.create_default_context()
        if not self.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def header_lines(self, accept: str) -> bytes:
        """The header lines that are the same in every request, each ended by CRLF."""
        headers = {
            "host": self.address.authority,
            "user-agent": "setpoint-measure",
            "accept": accept,
            "accept-encoding": "identity",
        }
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        headers |= {name.lower(): value for name, value in self.headers.items()}
        return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
