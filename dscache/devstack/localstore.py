"""An object store on this machine, for `dscache up`, the tests and the demo."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from ..config import Config
from . import process, record, server, users
from .errors import StackError
from .record import Login

GRACE_S = 15.0
PORT_ATTEMPTS = 3


class LocalStore:
    """The store whose data, credentials and log are in `directory`. Not thread-safe.

    `start` returns once the server runs and the bucket, users and policies exist. Ports and
    credentials stay the same from one start to the next. The server outlives this object unless it
    is stopped. As a context manager, the store is started and stopped.

    Args:
        directory: the directory.
        binary: the server program.
        bucket: name of the bucket to create.
        buckets: a bucket name or pattern of names (`t-*`) that both users may use; None means
            `bucket`.
    """

    def __init__(
        self, directory: Path, binary: Path, *, bucket: str = "dscache", buckets: str | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.binary = binary
        self.bucket = bucket
        self._buckets = buckets or bucket
        self._record = record.read_record(self.directory)
        self._credentials = record.credentials(self.directory)

    @property
    def endpoint(self) -> str:
        """URL of the S3 interface."""
        return f"http://{server.HOST}:{self._record.api_port}"

    @property
    def console(self) -> str:
        """URL of the web console."""
        return f"http://{server.HOST}:{self._record.console_port}"

    @property
    def log(self) -> Path:
        """The server's log."""
        return server.log_path(self.directory)

    @property
    def pid(self) -> int | None:
        """Process id of the server; None if it does not run."""
        return self._record.server.pid if self.running and self._record.server else None

    @property
    def running(self) -> bool:
        """Whether the server that was started in this directory runs."""
        return process.alive(self._record.server)

    @property
    def config(self) -> Config:
        """Configuration with root's credentials."""
        return self._config(self._credentials.root)

    @property
    def client_config(self) -> Config:
        """Configuration with the client user's credentials."""
        return self._config(self._credentials.client)

    @property
    def builder_config(self) -> Config:
        """Configuration with the builder user's credentials."""
        return self._config(self._credentials.builder)

    def start(self) -> LocalStore:
        """Start the server unless it runs, then create the bucket, users and policies.

        Raises StackError, with the end of the server's log if that helps.
        """
        if not self.running:
            self._start_server()
        if not self._record.provisioned:  # also after an interrupted start
            self._provision()
        return self

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket if it does not exist; the users may use it if `buckets` matches it."""
        users.create_bucket(self.endpoint, self._credentials.root, bucket)

    def stop(self) -> bool:
        """Stop the server gracefully. Returns False if it did not run."""
        stopped = process.stop(self._record.server, grace_s=GRACE_S)
        self._remember(None)
        return stopped

    def kill(self) -> None:
        """Kill the server with SIGKILL, as in a crash."""
        process.kill(self._record.server)
        self._remember(None)

    def __enter__(self) -> LocalStore:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _provision(self) -> None:
        assert self._record.server is not None
        server.wait_healthy(self._record.server, self.directory, self._record.api_port)
        self.create_bucket(self.bucket)
        users.provision(self.endpoint, self._credentials, buckets=self._buckets)
        self._record = record.read_record(self.directory)
        self._record.provisioned = True
        record.write_record(self.directory, self._record)

    def _start_server(self) -> None:
        for attempt in range(PORT_ATTEMPTS):
            ports = server.free_ports([self._record.api_port, self._record.console_port])
            try:
                self._start_on(ports)
                return
            except StackError:
                # another process may have taken a port since it was found to be free
                taken = server.free_ports(ports) != ports
                if not taken or attempt == PORT_ATTEMPTS - 1:
                    raise

    def _start_on(self, ports: list[int]) -> None:
        self._record = _with_ports(record.read_record(self.directory), ports)
        started = server.start(
            self.binary,
            self.directory,
            root=self._credentials.root,
            api_port=ports[0],
            console_port=ports[1],
        )
        self._remember(started)
        server.wait_healthy(started, self.directory, ports[0])

    def _remember(self, started: process.Process | None) -> None:
        ports = [self._record.api_port, self._record.console_port]
        self._record = _with_ports(record.read_record(self.directory), ports)
        self._record.server = started
        self._record.provisioned = False
        record.write_record(self.directory, self._record)

    def _config(self, login: Login) -> Config:
        return Config(
            home=self.directory / "home",
            endpoint=self.endpoint,
            console=self.console,
            bucket=self.bucket,
            access_key=login.access_key,
            secret_key=login.secret_key,
        )


def _with_ports(stored: record.Record, ports: list[int]) -> record.Record:
    """Return the record with these ports."""
    stored.api_port, stored.console_port = ports
    return stored
