"""`dscache doctor`: check the configuration, the store and the local cache."""

from __future__ import annotations

import queue
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import DscacheError
from ..units import format_bytes
from .common import App, common, echo

if TYPE_CHECKING:
    from ..client import Client
    from ..config import Config

LISTEN_S = 8.0
CLOCK_SKEW_S = 300.0


@dataclass(frozen=True)
class Finding:
    """The result of one check. `exit_code` is that of the command if this check fails first."""

    name: str
    ok: bool
    detail: str
    exit_code: int = 1


@click.command()
@common
def doctor(app: App) -> int:
    """Check the configuration, the store and the local cache.

    Exits with 0 if every check passes.
    """
    findings = []
    for finding in examine(app):
        findings.append(finding)
        if not app.json:
            mark = "ok  " if finding.ok else "FAIL"
            echo(f"{mark}  {finding.name:<14} {finding.detail}")
    if app.json:
        app.print_json([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings])
    return next((finding.exit_code for finding in findings if not finding.ok), 0)


def examine(app: App) -> Iterator[Finding]:
    """Run the checks in order; stop at one without which the others cannot work."""
    try:
        client = app.client()
        endpoint = client.config.require_endpoint()
    except DscacheError as error:
        yield Finding("configuration", False, str(error), error.exit_code)
        return
    profile = f" (profile {client.config.profile})" if client.config.profile else ""
    yield Finding("configuration", True, f"{endpoint}, bucket {client.config.bucket}{profile}")
    yield Finding("settings", True, _sources(client.config))
    for check in (_read, _request):
        finding = _run_check(client, check)
        yield finding
        if not finding.ok:
            return
    for check in (_notifications, _clock, _cache):
        yield _run_check(client, check)


def _sources(config: Config) -> str:
    """Where each setting came from, one source after the other."""
    sources: dict[str, list[str]] = {}
    for name, source in config.origin.items():
        sources.setdefault(source, []).append(name)
    parts = [f"{', '.join(sorted(names))} from {source}" for source, names in sources.items()]
    return "; ".join(parts) or "all at their defaults"


def _run_check(client: Client, check: Callable[[Client], Finding]) -> Finding:
    try:
        return check(client)
    except DscacheError as error:
        return Finding(check.__name__.strip("_"), False, str(error), error.exit_code)


def _read(client: Client) -> Finding:
    from ..protocol import layout

    started = time.monotonic()
    client.store.get(f"{layout.DATASETS}.doctor")  # does not exist
    milliseconds = (time.monotonic() - started) * 1000
    return Finding("read", True, f"datasets/ is readable ({milliseconds:.0f} ms)")


def _request(client: Client) -> Finding:
    from ..protocol.selftest import check_conditional_create

    check_conditional_create(client.store, secrets.token_hex(8))
    return Finding("request", True, "requests/ is writable; conditional writes work")


def _notifications(client: Client) -> Finding:
    from ..protocol import layout
    from ..store.notifications import Connected, Listener, Signal

    signals: queue.Queue[Signal] = queue.Queue()
    with Listener(client.config, layout.DATASETS, signals.put):
        try:
            signal = signals.get(timeout=LISTEN_S)
        except queue.Empty:
            signal = None
    if isinstance(signal, Connected):
        return Finding("notifications", True, "the store sends notifications")
    reason = getattr(signal, "reason", f"no answer in {LISTEN_S:g} s")
    return Finding(
        "notifications", False, f"no notifications ({reason}); dscache polls every few seconds"
    )


def _clock(client: Client) -> Finding:
    ahead_s = client.store.now() - time.time()
    ok = abs(ahead_s) < CLOCK_SKEW_S
    return Finding("clock", ok, f"the store's clock differs by {round(ahead_s):+d} s")


def _cache(client: Client) -> Finding:
    from ..folder.filesystems import network_type

    home = client.config.home
    existing = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    kind = network_type(home)
    note = f"; on {kind}: locks are not visible to other machines" if kind else ""
    missing = [str(path) for path in client.config.shared_homes if not path.is_dir()]
    if missing:
        return Finding("cache", False, f"shared_homes: no such folder: {', '.join(missing)}")
    limit = client.config.cache_limit
    limit_note = "" if limit is None else f", limited to {format_bytes(limit)}"
    return Finding("cache", True, f"{home} ({format_bytes(free)} free{limit_note}{note})")
