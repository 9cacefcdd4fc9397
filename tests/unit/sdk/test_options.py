"""Options: checked, described, resolved."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from dscache_sdk import DatasetHandler, HandlerContractError, OptionsError


class Inner(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    low: float = 0.0


class Sized(DatasetHandler, name="sized"):
    class Options(msgspec.Struct, kw_only=True):
        size: Annotated[tuple[int, int], Meta(description="Height and width.")] = (8, 8)
        rate: Annotated[float, Meta(ge=0, le=1, description="How often.")] = 0.5
        mode: Literal["a", "b"] = "a"
        inner: Inner = msgspec.field(default_factory=Inner)
        threads: Annotated[int, Meta(ge=1, extra_json_schema={"x-neutral": True})] = 1
        label: str | None = None


class Strict(DatasetHandler, name="strict"):
    class Options(msgspec.Struct, kw_only=True):
        path: str


def test_options_become_attributes() -> None:
    handler: Any = Sized({"size": [4, 5], "mode": "b"}, "raw")
    assert (handler.size, handler.mode, handler.rate) == ((4, 5), "b", 0.5)
    assert handler.options.size == (4, 5)
    assert handler.base_data_path == "raw"


@pytest.mark.parametrize(
    ("config", "option", "parts"),
    [
        ({"sise": 1}, "sise", ["no such option", "did you mean 'size'?"]),
        ({"zzz": 1}, "zzz", ["no such option", "Options: size, rate, mode"]),
        ({"size": [1, "x"]}, "size[1]", ["expected `int`, got `str`", "[1, 'x']"]),
        ({"size": [1]}, "size", ["length 2"]),
        ({"size": [1.5, 2]}, "size[0]", ["expected `int`, got `float`"]),
        ({"rate": 1.5}, "rate", ["<= 1", "1.5"]),
        ({"rate": True}, "rate", ["got `bool`"]),
        ({"mode": "c"}, "mode", ["'c'", "expected one of a, b;"]),
        ({"inner": {"high": 1}}, "inner", ["unknown field `high`"]),
        ({"inner": {"low": "x"}}, "inner.low", ["expected `float`"]),
        ({"threads": 0}, "threads", [">= 1"]),
        ([], "", ["expected an object"]),
    ],
)
def test_bad_configs_are_refused_with_place_value_and_expectation(
    config: Any, option: str, parts: list[str]
) -> None:
    with pytest.raises(OptionsError) as caught:
        Sized(config, "raw")
    assert caught.value.option == option
    for part in parts:
        assert part in str(caught.value)


def test_required_options() -> None:
    with pytest.raises(OptionsError, match="'path': is required"):
        Strict({}, "raw")
    assert "default" not in Strict.config_options()["path"]


def test_whole_floats_are_integers() -> None:
    assert Sized({"size": [4.0, 5.0]}, "raw").options.size == (4, 5)
    assert Sized.resolve({"size": [4.0, 5]}) == Sized.resolve({"size": [4, 5]})


def test_resolving_folds_defaults_in_and_drops_neutral_options() -> None:
    resolved = Sized.resolve({"mode": "b", "threads": 4})
    assert resolved == {
        "size": [8, 8],
        "rate": 0.5,
        "mode": "b",
        "inner": {"low": 0.0},
        "label": None,
    }
    assert Sized.resolve({"threads": 2}) == Sized.resolve({}) == Sized.resolve({"mode": "a"})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "size": st.tuples(st.integers(1, 9), st.integers(1, 9)).map(list),
            "rate": st.floats(0, 1),
            "threads": st.integers(1, 4),
            "label": st.none() | st.text(),
        },
    )
)
def test_resolving_twice_changes_nothing(config: dict[str, Any]) -> None:
    once = Sized.resolve(config)
    assert Sized.resolve(once) == once
    assert json.loads(json.dumps(once)) == once


def test_every_option_is_described() -> None:
    described = Sized.config_options()
    assert json.loads(json.dumps(described)) == described
    assert described["size"] == {
        "type": "array of 2 integer",
        "default": [8, 8],
        "limits": {"min_items": 2, "max_items": 2},
        "help": "Height and width.",
        "neutral": False,
    }
    assert described["rate"]["limits"] == {"min": 0, "max": 1}
    assert described["mode"]["limits"] == {"choices": ["a", "b"]}
    assert described["inner"]["type"] == "object of low"
    assert described["threads"]["neutral"] is True
    assert described["label"]["type"] == "string or null"


def test_the_schema_is_self_contained() -> None:
    schema = Sized.options_schema()
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == list(Sized.config_options())
    references = [part.split('"')[0] for part in json.dumps(schema).split('"$ref": "#/$defs/')[1:]]
    assert references
    assert set(references) <= set(schema["$defs"])


def test_options_may_not_hide_a_method_or_attribute() -> None:
    for taken in ("load", "plan", "raw", "features", "name", "output_dir", "resolve"):
        options = msgspec.defstruct("Options", [(taken, int, 0)], kw_only=True)
        with pytest.raises(HandlerContractError, match=f"the option '{taken}' would hide"):
            type("Hiding", (DatasetHandler,), {"Options": options}, name="hiding")


def test_classes_that_are_refused() -> None:
    class Loose(msgspec.Struct):
        a: int = 0

    options = msgspec.defstruct(
        "Options", [("x", list[Loose], msgspec.field(default_factory=list))]
    )
    with pytest.raises(HandlerContractError, match=r"Options.x: declare Loose with forbid"):
        type("Nested", (DatasetHandler,), {"Options": options}, name="nested")
    with pytest.raises(HandlerContractError, match=r"must be a msgspec.Struct"):
        type("Wrong", (DatasetHandler,), {"Options": dict}, name="wrong")
    with pytest.raises(HandlerContractError, match="lower-case"):
        type("Upper", (DatasetHandler,), {}, name="Upper")
    with pytest.raises(HandlerContractError, match="has no name"):
        type("Nameless", (DatasetHandler,), {})({}, "raw")


def test_options_check_each_other() -> None:
    class Pair(DatasetHandler, name="pair"):
        class Options(msgspec.Struct, kw_only=True):
            low: int = 0
            high: int = 1

            def __post_init__(self) -> None:
                if self.low > self.high:
                    raise ValueError("low is above high")

    with pytest.raises(OptionsError, match="low is above high"):
        Pair({"low": 2}, "raw")
