"""Options of a handler: check them against a msgspec Struct, describe and resolve them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from dscache_sdk.errors import HandlerContractError, OptionsError

NEUTRAL = "x-neutral"

_LIMITS = {
    "minimum": "min",
    "maximum": "max",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "multipleOf": "multiple_of",
    "pattern": "pattern",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_items",
    "maxItems": "max_items",
    "enum": "choices",
}


def check_options_class(options: Any, taken: Iterable[str], where: str) -> None:
    """Check that a class can serve as `Options`; called when the handler class is defined.

    Args:
        options: the nested class.
        taken: names that an option may not have: methods and attributes of the handler.
        where: the handler's class name, for messages.

    Raises:
        HandlerContractError: the class is not a Struct, an option hides an attribute, or a nested
            Struct would silently ignore unknown members.
    """
    if not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        raise HandlerContractError(f"{where}.Options must be a msgspec.Struct")
    reserved = set(taken)
    for field in msgspec.structs.fields(options):
        if field.name in reserved or field.name.startswith("_"):
            raise HandlerContractError(
                f"{where}: the option '{field.name}' would hide an attribute or method of the "
                "handler; rename the option"
            )
        _check_nested(inspect.type_info(field.type), f"{where}.Options.{field.name}")


def _check_nested(info: Any, where: str) -> None:
    if isinstance(info, inspect.StructType) and not info.forbid_unknown_fields:
        raise HandlerContractError(
            f"{where}: declare {info.cls.__name__} with forbid_unknown_fields=True, so that "
            "misspelt members are rejected"
        )
    for name in ("type", "item_type", "key_type", "value_type"):
        inner = getattr(info, name, None)
        if isinstance(inner, inspect.Type):
            _check_nested(inner, where)
    for name in ("types", "item_types"):
        for inner in getattr(info, name, ()):
            _check_nested(inner, where)
    for field in getattr(info, "fields", ()):
        if isinstance(info, inspect.StructType):
            _check_nested(field.type, f"{where}.{field.name}")


def parse_options(options: type[msgspec.Struct], config: Mapping[str, Any]) -> Any:
    """Convert a config to an instance of `options`.

    Integers may be written 1 or 1.0; lists become tuples if so declared.

    Raises:
        OptionsError: an option is unknown, missing, has a wrong type or a wrong value.
    """
    if not isinstance(config, Mapping):
        raise OptionsError("", f"expected an object of options, got {type(config).__name__}")
    fields = {field.encode_name: field for field in msgspec.structs.fields(options)}
    for name in config:
        if name not in fields:
            raise OptionsError(str(name), _unknown(str(name), list(fields)))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in config:
            values[field.name] = _convert(name, _plain_numbers(config[name]), field.type)
        elif field.required:
            raise OptionsError(name, "is required, because it has no default")
    try:
        return options(**values)
    except (ValueError, TypeError) as error:
        raise OptionsError("", str(error)) from error


def refuse_unknown(config: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise OptionsError for the first option of the config that is not allowed."""
    names = [str(name) for name in allowed]
    for name in config:
        if name not in names:
            raise OptionsError(str(name), _unknown(str(name), names))


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    options = ", ".join(known) or "none"
    return f"there is no such option; {hint}Options: {options}"


def _plain_numbers(value: Any) -> Any:
    """Convert whole floats to int, as in the canonical form of a spec, and tuples to lists."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain_numbers(item) for name, item in value.items()}
    return value


def _convert(name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except UnicodeEncodeError as error:
        raise OptionsError(name, "contains a lone surrogate, which is not text") from error
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`")
        message = f"{_lower(problem)}{_choices(problem, kind)}; the value is {value!r}"
        raise OptionsError(f"{name}{place}", message) from error


def _choices(problem: str, kind: Any) -> str:
    """The values of an enum, which msgspec's message lacks; "" for other errors."""
    if not problem.startswith("Invalid enum value"):
        return ""
    choices: list[str] = []
    pending: list[Any] = [msgspec.json.schema(kind)]
    while pending:
        node = pending.pop(0)
        if isinstance(node, dict):
            choices += [str(choice) for choice in node.get("enum", [])]
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return f", expected one of {', '.join(choices)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def to_json_values(options: msgspec.Struct) -> dict[str, Any]:
    """All options with their values in JSON form."""
    values = {
        field.encode_name: getattr(options, field.name)
        for field in msgspec.structs.fields(type(options))
    }
    text = msgspec.json.encode(values, order="deterministic")
    decoded: dict[str, Any] = msgspec.json.decode(text)
    return decoded


def schema_of(options: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON Schema (2020-12) of the options: self-contained, without unknown members."""
    schema = msgspec.json.schema(options)
    definitions = schema.pop("$defs")
    name = schema.pop("$ref").rpartition("/")[2]
    top: dict[str, Any] = definitions.pop(name)
    top["additionalProperties"] = False
    top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    if definitions:
        top["$defs"] = definitions
    return top


def describe_options(options: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Every option with its type, default, limits, help and whether it is neutral.

    Returns:
        {option: {"type", "default", "limits", "help", "neutral"}}, all JSON-able. "default" is
        absent for a required option; "limits" is empty where there are none.
    """
    schema = schema_of(options)
    defaults = _defaults(options)
    described: dict[str, dict[str, Any]] = {}
    for name, property_schema in schema["properties"].items():
        entry: dict[str, Any] = {
            "type": _type_text(property_schema, schema.get("$defs", {})),
            "limits": _limits(property_schema),
            "help": property_schema.get("description", ""),
            "neutral": bool(property_schema.get(NEUTRAL)),
        }
        if name in defaults:
            entry["default"] = defaults[name]
        described[name] = entry
    return described


def neutral_names(options: type[msgspec.Struct]) -> set[str]:
    """Names of the options that affect the speed but not the bytes."""
    properties = schema_of(options)["properties"]
    return {name for name, schema in properties.items() if schema.get(NEUTRAL)}


def _defaults(options: type[msgspec.Struct]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(options):
        if field.default is not msgspec.NODEFAULT:
            values[field.encode_name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            values[field.encode_name] = field.default_factory()
    decoded: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(values, order="deterministic")
    )
    return decoded


def _limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    limits = {ours: schema[theirs] for theirs, ours in _LIMITS.items() if theirs in schema}
    for inner in schema.get("anyOf", []):
        limits.update(_limits(inner))
    items = schema.get("items") or next(iter(schema.get("prefixItems", [])), None)
    if isinstance(items, dict) and (inside := _limits(items)):
        limits["items"] = inside
    return limits


def _type_text(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _type_text(definitions.get(name, {}), definitions)
    if "anyOf" in schema:
        return " or ".join(_type_text(inner, definitions) for inner in schema["anyOf"])
    kind = schema.get("type")
    if "enum" in schema:
        return "choice"
    if kind == "array":
        return _array_text(schema, definitions)
    if kind == "object":
        members = ", ".join(schema.get("properties", {}))
        return f"object of {members}" if members else "object"
    return str(kind) if kind else "any"


def _array_text(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        inner = [_type_text(item, definitions) for item in schema["prefixItems"]]
        return f"array of {len(inner)} {inner[0]}" if len(set(inner)) == 1 else "array"
    items = schema.get("items")
    return f"array of {_type_text(items, definitions)}" if isinstance(items, dict) else "array"
