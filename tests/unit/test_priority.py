"""Every way to request a dataset has the same default priority."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import dscache
from dscache.cli import get
from dscache.client import Client
from dscache.protocol.manifests import Request
from dscache.protocol.priority import DEFAULT_PRIORITY, MAX_PRIORITY, MIN_PRIORITY
from dscache.protocol.wait import put_request
from dscache.remote import RequestOptions


@pytest.mark.parametrize(
    "request_function",
    [dscache.get, dscache.request_dataset, Client.get, Client.request, put_request, RequestOptions,
     Request],
)  # fmt: skip
def test_the_default_is_the_same_in_python(request_function: Callable[..., Any]) -> None:
    parameters = inspect.signature(request_function).parameters
    assert parameters["priority"].default == DEFAULT_PRIORITY


@pytest.mark.parametrize("command", [get.get, get.request, get.run])
def test_the_default_and_the_range_are_the_same_on_the_command_line(command: Any) -> None:
    option = next(option for option in command.params if option.name == "priority")
    assert option.default == DEFAULT_PRIORITY
    assert (option.type.min, option.type.max) == (MIN_PRIORITY, MAX_PRIORITY)
