"""Start the programs under test as processes, and wait for conditions with a deadline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dscache.config import Config
from support.measured import unmeasured

LIMIT_S = 60.0
CRASHING = Path(__file__).with_name("crashing_builder.py")


def wait_until(happened: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Return what `happened` returns once it is true; fail after the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        result = happened()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {limit_s} s: {what}")


def idle() -> None:
    """A heartbeat that does nothing."""


@dataclass
class Builder:
    """`dscache-builder` as a process of its own, in its own session."""

    toml: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, crash_before: int | None = None) -> Builder:
        """Start it; with `crash_before` n it kills itself before its n-th request to the store."""
        program = ["-m", "dscache_builder"] if crash_before is None else [str(CRASHING)]
        environ = {**clean_environ(), **self.environ}
        if crash_before is not None:
            # killed, it would not write what it measured
            environ = {**unmeasured(environ), "CRASH_BEFORE": str(crash_before)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--config", str(self.toml), *arguments],
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        return self

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(35)

    def kill(self) -> None:
        """SIGKILL to the builder alone; its workers must notice by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait until it ends by itself, and return its exit code (negative: the signal)."""
        assert self.process is not None
        return self.process.wait(limit_s)

    def text(self) -> str:
        """Its log."""
        return self.log.read_text()


def clean_environ() -> dict[str, str]:
    """This environment without what configures dscache or the AWS SDK."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("DSCACHE_", "AWS_"))}


def write_builder_toml(
    folder: Path,
    config: Config,
    datasets: Mapping[str, Mapping[str, Any]],
    find_links: Path,
    environments: Path,
    **settings: Any,
) -> Path:
    """A builder.toml with a state folder of its own that shares the session's environments."""
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    environments.mkdir(parents=True, exist_ok=True)
    if not (state / "environments").exists():
        (state / "environments").symlink_to(environments)
    document: dict[str, Any] = {
        "state": str(state),
        "find_links": [str(find_links)],
        **settings,
        "store": {
            "endpoint": config.endpoint,
            "bucket": config.bucket,
            "access_key": config.access_key,
            "secret_key": config.secret_key,
        },
        "datasets": datasets,
    }
    import tomli_w

    path = folder / "builder.toml"
    path.touch(mode=0o600)  # it holds a secret
    path.write_text(tomli_w.dumps(document))
    return path


@dataclass(frozen=True)
class Ran:
    """What a finished command printed and returned."""

    code: int
    out: str
    err: str


def client_environ(config: Config) -> dict[str, str]:
    """The environment of a client process."""
    return {
        **clean_environ(),
        "DSCACHE_ENDPOINT": config.endpoint,
        "DSCACHE_BUCKET": config.bucket,
        "DSCACHE_ACCESS_KEY": config.access_key,
        "DSCACHE_SECRET_KEY": config.secret_key,
        "DSCACHE_HOME": str(config.home),
        "DSCACHE_CONFIG": str(config.home / "no-config.toml"),
    }


def start_dscache(config: Config, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """`dscache …` as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", "from dscache.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**client_environ(config), **environ},
        cwd=Path("/"),
    )


def dscache(config: Config, *arguments: str, limit_s: float = LIMIT_S, **environ: str) -> Ran:
    """Run `dscache …` to its end."""
    process = start_dscache(config, *arguments, **environ)
    out, err = process.communicate(timeout=limit_s)
    return Ran(process.returncode, out, err)


def write_spec(path: Path, dataset_name: str, version: str = "1.0.0", **options: Any) -> Path:
    """A config file."""
    document = {
        "dataset_name": dataset_name,
        "handler_version": version,
        "dataset_config": options,
    }
    path.write_text(json.dumps(document))
    return path


def run_builder(builder: Builder, *arguments: str, limit_s: float = LIMIT_S) -> Ran:
    """Run `dscache-builder …` with a builder's configuration to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "dscache_builder", "--config", str(builder.toml), *arguments],
        capture_output=True,
        text=True,
        env={**clean_environ(), **builder.environ},
        timeout=limit_s,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
