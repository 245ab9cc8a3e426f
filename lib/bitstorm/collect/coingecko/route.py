"""How a request leaves this machine: the proxy and the certificates that the environment names.

`requests` reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (lower case wins), and
REQUESTS_CA_BUNDLE, then CURL_CA_BUNDLE. A wrong value fails inside it as an error of the disk or of
the address, so values are checked before a call.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from bitstorm.core.doctor import Check
from bitstorm.core.errors import EnvironmentProblem

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CA_UNREAD = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Variable:
    """A variable of the environment; its text hides a password before a host."""

    name: str
    value: str

    def __str__(self) -> str:
        # The last @ ends the login: a password may hold others.
        login, at, host = self.value.rpartition("@")
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*:)?//|", login)[0]  # type: ignore[index]
        user, colon, _ = login.removeprefix(scheme).partition(":")
        hidden = f"{scheme}{user if colon else ''}{colon}***@" if at else ""
        return f"{self.name}={hidden}{host}"


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def proxy_of(url: str) -> Variable | None:
    """The variable whose proxy `requests` takes for the URL, None for a direct connection."""
    proxies = requests.utils.get_environ_proxies(url, no_proxy=None)
    value = requests.utils.select_proxy(url, proxies)
    if not value:
        return None
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    for name in (*names, *map(str.upper, names)):
        if os.environ.get(name) == value:
            return Variable(name, value)
    return Variable("the system's proxy", value)


def certificates() -> Variable | None:
    """The variable whose CA certificates `requests` takes, None for those of `certifi`."""
    found = (Variable(name, os.environ[name]) for name in _CA_VARIABLES if os.environ.get(name))
    return next(found, None)


def trust() -> str:
    """Whose certificates count, and what to do where they do not suffice."""
    if variable := certificates():
        return f"by {variable}"
    unread = [f"{name} is not read" for name in _CA_UNREAD if os.environ.get(name)]
    advice = "set REQUESTS_CA_BUNDLE to the CA file of your network"
    return f"by the package certifi: {'; '.join([*unread, advice])}"


def check_route(url: str) -> None:
    """Raise EnvironmentProblem where a variable keeps every request for the URL from leaving."""
    for check, variable in ((_proxy_problem, proxy_of(url)), (_ca_problem, certificates())):
        problem = variable and check(variable.value, url)
        if problem:
            raise EnvironmentProblem(f"{variable} {problem}, or unset it; no call was made")


def _proxy_problem(value: str, url: str) -> str | None:
    change = "set it to one such as http://proxy.example:3128"
    try:
        address = requests.utils.prepend_scheme_if_needed(value, "http")
        parsed = urllib3.util.parse_url(address)
    except (ValueError, urllib3.exceptions.HTTPError):
        return f"is no address of a proxy: {change}"
    scheme = (parsed.scheme or "").lower()
    if not parsed.host:
        return f"is no address of a proxy: {change}"
    if re.fullmatch(r"socks(4a?|5h?)", scheme):
        missing = find_spec("socks") is None
        return "is a SOCKS proxy, which needs the package PySocks: install it" if missing else None
    if scheme not in ("http", "https"):
        return f"has the scheme {scheme}, which no proxy has: {change}"
    return None


def _ca_problem(value: str, url: str) -> str | None:
    if urlsplit(url).scheme != "https":
        return None
    path = Path(value)
    if path.is_dir():
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "holds no certificate in the PEM format: set it to a file of CA certificates"
    except OSError as error:
        return f"cannot be read ({error.strerror}): set it to a file of CA certificates"
    return None


def reach(url: str, *, needed: bool, seconds: float) -> Check:
    """Whether the host of the URL can be reached, by a connection without a request. Where it is
    not `needed`, only the variables are looked at, and a wrong one is a note."""
    loopback = is_loopback(url)
    try:
        if not loopback:
            check_route(url)
    except EnvironmentProblem as error:
        return Check("network", "stop" if needed else "note", str(error))
    proxy = None if loopback else proxy_of(url)
    way = f"through {proxy}" if proxy else "without a proxy"
    found = f"{urlsplit(url).hostname} {way}, certificates of {certificates() or 'certifi'}"
    if not needed:
        return Check("network", "ok", f"not needed by source.mode; it would be {found}")
    place = requests.utils.prepend_scheme_if_needed(proxy.value, "http") if proxy else url
    address = urllib3.util.parse_url(place)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.host or "", port), timeout=seconds).close()
    except OSError as error:
        problem = f"{address.host}:{port} cannot be reached ({error.strerror or error})"
        advice = "check the network and source.base_url"
        if proxy:
            advice = f"correct or unset {proxy.name}"
        return Check("network", "stop", f"{found}: {problem}", advice)
    return Check("network", "ok", found)
