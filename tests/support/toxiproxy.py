"""Toxiproxy, a TCP proxy of others that makes a network bad, as a child process.

Toxics as its page describes them, with what was found in its source (v2.5.0):

- `latency` (ms, one way) and `bandwidth` (KB/s, each connection by itself; 0 is no limit at all);
- `timeout` 0 swallows everything; when it is removed, the connections that had it are closed;
- `limit_data` (bytes of a connection) ends it by FIN, also in the middle of an answer;
- `reset_peer` swallows the first packet and resets, so nothing of an answer arrives. With toxicity
  0 it does nothing itself, but connections made from then on end by RST, whoever ends them;
- `slicer` (bytes, and µs between slices).

Connecting costs no latency, and there is no slow start: both ends of a connection are on loopback.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dscache.devstack.errors import StackError, with_tail
from dscache.devstack.server import HOST, free_ports
from support.running import wait_until

START_S = 20.0
STOP_S = 10.0
API_S = 30.0


class Proxy:
    """One listening port in front of `upstream`, with toxics of its own.

    They meet the connections there are as well as later ones. Names of toxics are
    `<kind>_<direction>`, so each kind may be there once in each direction.
    """

    def __init__(self, server: Toxiproxy, name: str, listen: str) -> None:
        self._server = server
        self._name = name
        self._listen = listen

    @property
    def url(self) -> str:
        """URL of the upstream through this proxy."""
        return f"http://{self._listen}"

    @property
    def connections(self) -> int:
        """How many were accepted, from the server's log."""
        found = 0
        for line in self._server.log.read_text().splitlines():
            found += '"Accepted client"' in line and f'"name":"{self._name}"' in line
        return found

    def add(
        self, kind: str, *, upstream: bool = False, toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Add a toxic to answers (downstream) or to requests."""
        self._call(
            "POST",
            "/toxics",
            type=kind,
            stream=_stream(upstream),
            toxicity=toxicity,
            attributes=attributes,
        )

    def remove(self, kind: str, *, upstream: bool = False) -> None:
        """Take a toxic away."""
        self._call("DELETE", f"/toxics/{kind}_{_stream(upstream)}")

    def disable(self) -> None:
        """Close all connections and refuse new ones."""
        self._call("POST", "", enabled=False)

    def enable(self) -> None:
        """Accept connections again, on the same port."""
        self._call("POST", "", enabled=True)

    def _call(self, method: str, path: str, **body: Any) -> None:
        self._server.call(method, f"/proxies/{self._name}{path}", body)


class Toxiproxy:
    """The server `binary` on a free loopback port, as long as the context lasts.

    It writes to `log`. Raises StackError when it does not start, with the end of that.
    """

    def __init__(self, binary: Path, log: Path) -> None:
        self.log = log
        self._binary = binary
        self._names = map("proxy{}".format, itertools.count(1))
        (self._port,) = free_ports([0])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Toxiproxy:
        argv = [str(self._binary), "-host", HOST, "-port", str(self._port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            wait_until(self._answers, "toxiproxy answers", START_S)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def proxy(self, upstream: str) -> Proxy:
        """A new proxy to the host and port of a URL; it ends with the server."""
        name = next(self._names)
        made = self.call(
            "POST",
            "/proxies",
            {"name": name, "listen": f"{HOST}:0", "upstream": urlsplit(upstream).netloc},
        )
        return Proxy(self, name, made["listen"])

    def call(self, method: str, path: str, body: Any) -> Any:
        """One call of the server's interface. Raises StackError with what it answers."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=API_S)
        try:
            connection.request(method, path, json.dumps(body))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise StackError(f"toxiproxy: {method} {path} {body}: {response.status} {text}")
        return json.loads(text) if text else None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise StackError(with_tail("toxiproxy ended at once", self.log))
        try:
            self.call("GET", "/proxies", {})
        except OSError:
            return False
        return True

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _stream(upstream: bool) -> str:
    return "upstream" if upstream else "downstream"
