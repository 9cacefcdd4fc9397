"""Specs and keys: golden keys never change; what does not matter does not count; the rest does."""

from __future__ import annotations

import json
import math
import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.errors import SpecError
from dscache.spec import MAX_FILE_BYTES, Spec, from_members, load_spec, parse_spec, split_key

GOLDEN = {
    "photos_1.0.0_bee10186afc9b69ecd332bee2134a73e": {
        "dataset_name": "photos",
        "handler_version": "1.0.0",
        "dataset_config": {
            "image_size": [1024, 1024],
            "crop_size": [800, 800],
            "variations_per_sample": 1,
        },
    },
    "a_v1_0919f3bb275ff90f7ef88203aeffe3d7": {
        "dataset_name": "a",
        "handler_version": "v1",
        "dataset_config": {},
    },
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=64).filter(
        lambda x: abs(x) < 2**53 or not float(x).is_integer()
    )
    | st.text(max_size=8).filter(lambda s: s.isprintable())
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_letters, max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
configs = st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=6), values, max_size=6)


def spec(config: dict[str, Any]) -> Spec:
    return Spec.of("photos", "1.0.0", config)


@pytest.mark.parametrize("key", GOLDEN)
def test_golden_keys(key: str) -> None:
    assert from_members(GOLDEN[key]).key == key


def test_the_revision_counts_only_when_present() -> None:
    without = Spec.of("photos", "1.0.0", {})
    assert b"dataset_revision" not in without.canonical
    assert Spec.of("photos", "1.0.0", {}, "r1").key != without.key
    assert Spec.of("photos", "1.0.0", {}, None).key == without.key


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(inner, rng)) for name, inner in value.items()]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(inner, rng) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return rng.choice([value, float(value)])
    return value


@given(configs, st.randoms(use_true_random=False))
def test_order_and_number_spelling_never_matter(config: dict[str, Any], rng: random.Random) -> None:
    assert spec(shuffled(config, rng)).key == spec(config).key
    text = json.dumps(
        {"dataset_config": config, "handler_version": "1.0.0", "dataset_name": "photos"}
    )
    assert parse_spec(text).key == spec(config).key


@given(configs)
def test_the_decoded_canonical_form_is_a_fixed_point(config: dict[str, Any]) -> None:
    once = spec(config)
    again = parse_spec(once.canonical)
    assert again == once
    assert again.canonical == once.canonical


@given(configs, values, values)
def test_a_changed_value_is_another_key(config: dict[str, Any], old: Any, new: Any) -> None:
    before, after = spec({**config, "option": old}), spec({**config, "option": new})
    texts = [json.dumps(one.dataset_config) for one in (before, after)]  # for Python, False == 0
    assert (before.key == after.key) == (texts[0] == texts[1])


def test_list_order_matters() -> None:
    assert spec({"size": [1, 2]}).key != spec({"size": [2, 1]}).key


def test_handlers_see_800_not_800_0() -> None:
    (value,) = spec({"crop": 800.0}).dataset_config.values()
    assert (value, type(value)) == (800, int)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"a": math.nan}, ["dataset_config.a", "nan"]),
        ({"a": [1, math.inf]}, ["dataset_config.a[1]", "inf"]),
        ({"a": 2**53 + 1}, ["dataset_config.a", "2^53"]),
        ({"a": -(2**53)}, ["dataset_config.a", "2^53"]),
        ({"a": {"b": 1e300}}, ["dataset_config.a.b", "2^53"]),
        ({"a": "\ud800"}, ["dataset_config.a", "surrogate"]),
        ({1: 2}, ["dataset_config", "not a string"]),
        ({"a": object()}, ["dataset_config.a", "not a JSON value"]),
        ({"a": nested(70)}, ["nested deeper than 64"]),
    ],
)
def test_values_that_are_refused(config: dict[Any, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        spec(config)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a b", "a" * 64, "ä", "a/b"])
def test_dataset_names_that_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="dataset_name"):
        Spec.of(name, "1.0.0", {})


@pytest.mark.parametrize("version", ["", "-1", "1 0", "1/0", "1_0", "v" * 64, "1.0\n", "../x"])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(SpecError, match="handler_version"):
        Spec.of("a", version, {})


@pytest.mark.parametrize("version", ["1.0.0", "v1.2-rc.1+local", "0", "abc123"])
def test_versions_and_tags_that_are_fine(version: str) -> None:
    key = Spec.of("a-1", version, {}).key
    assert split_key(key) == ("a-1", version, key[-32:])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ["expected an object"]),
        ("{", ["not JSON", "line 1, column"]),
        ('{"dataset_name": "a", "dataset_name": "b"}', ["'dataset_name'", "twice"]),
        ('{"dataset_config": {"a": {"b": 1, "b": 1}}}', ["'b'", "twice"]),
        ('{"dataset_name": "a", "handler_version": "1", "dataset_config": []}', ["dataset_config"]),
        ('{"dataset_name": 1, "handler_version": "1", "dataset_config": {}}', ["dataset_name"]),
        ("NaN", ["NaN"]),
        ("1" * 5000, ["digits"]),
        ("[" * 100_000, ["nested"]),
        (b"\xff\xfe", ["UTF-8"]),
        (" " * (MAX_FILE_BYTES + 1), ["1 MiB"]),
        (
            '{"dataset_name": "a", "handler_version": "1", "dataset_config": {}, '
            '"dataset_revision": ""}',
            ["dataset_revision"],
        ),
        (
            '{"dataset_name": "a", "handler_version": "1", "dataset_config": {}, "seed": 1}',
            ["'seed'", "inside dataset_config"],
        ),
    ],
)
def test_texts_that_are_refused(text: str | bytes, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, where="cfg.json")
    assert str(caught.value).startswith("cfg.json: ")
    for word in words:
        assert word in str(caught.value)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path)


@pytest.mark.parametrize("text", ["", "photos", "photos_1.0.0_12", "p_1_" + "g" * 32])
def test_what_is_no_key(text: str) -> None:
    assert split_key(text) is None
