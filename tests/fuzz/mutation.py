"""Make bad input from valid input. All choices come from a `random.Random`: hypothesis gives one in
`make test`, a seed one in `make stress`."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

MAX_BYTES = 200_000  # of a mutated input
NUMBERS = (
    "0", "-1", "1", "-0", "-0.0", "1.5", "1e5", "1e308", "1e999", "-1e999", "5e-324", "4294967296",
    "9007199254740993", "9223372036854775808", "18446744073709551616", "-9223372036854775809",
    "1" + "0" * 400, "9" * 5000, "-" + "9" * 5000, "1e" + "9" * 5000, "0." + "1" * 5000, "007",
)  # fmt: skip
TEXTS = (
    "", " ", "a", "0", "null", "NaN", "\x00", "a\x00b", "\x1b[2J", "\u202e", "\ud800", "\udcff",
    "\ud83d\ude00", "é", "\uffff", "../../x", "/", "/etc/passwd", ".", "..", "~", "~nobody-there/x",
    "a/b", "%00", "{path}", "{version}", "A" * 300, "A" * 70_000, "١", "2020-99-99", "float32",
    "datasets/photos_1.0.0_00000000000000000000000000000000.zip", "http://[", "http://a:b/",
)  # fmt: skip
JSON = (
    *NUMBERS, "null", "true", "false", "NaN", "Infinity", "-Infinity", "[]", "{}", "[[]]", "[null]",
    '{"": null}', "[" * 10_000 + "]" * 10_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 100_000,
    "[" + "0," * 20_000 + "0]", '"\\ud800"', '"\\u0000"', '"\\x"', "'a'", '"', '"\udcff"', "",
    "/**/1", "undefined",
    *map(json.dumps, TEXTS),
)  # fmt: skip
TOML = (
    *NUMBERS, "true", "nan", "-inf", "[]", "{}", '""', '"\\u0000"', '"\\ud800"', "0x1_0", "1_0",
    "1979-05-27T07:32:00Z", "2020-99-99", "07:32:00", "[[1], [2]]", "{a = 1}", '"""', "'",
    "[" * 5_000 + "]" * 5_000, "{a=" * 3_000 + "1" + "}" * 3_000, '["a", 1]', '"~nobody-there/x"',
    '"a\\nb"', '"é"', '"' + "A" * 5000 + '"',
)  # fmt: skip
WORDS = (*NUMBERS, *TEXTS, "nan", "inf", "<", "&#" + "9" * 5000 + ";", "<!DOCTYPE a>", "==", "@")
FLIPS = (b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\x80", b"\n", b'"', b"{", b"[")


PIECES = (b"\0", b"\xff", b"\x80", b"9", b"[", b'{"a":', b"<a>", b"\n", b"a.", b"a/")


def mutated(seed: bytes, form: str, rng: Random) -> bytes:
    """Return a variation of a valid input. `form` is "json", "toml", "text" or "binary".

    Nine of ten keep the form, so that what is below the outermost syntax is reached, too.
    """
    change = CHANGES[form] if rng.random() < 0.9 else bent
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        seed = change(seed, rng)[:MAX_BYTES]
    return seed


def bent(data: bytes, rng: Random) -> bytes:
    """Change bytes: one bit, a piece that is cut out, repeated, overwritten or put elsewhere."""
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    before, piece, after = data[:start], data[start:stop], data[stop:]
    kind = rng.randrange(8)
    if kind == 0 and data:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return before
    if kind == 2:
        return before + after
    if kind == 3:
        return before + piece * rng.choice((2, 3, 100)) + after
    if kind == 4:
        return before + rng.choice(FLIPS) + piece + after
    if kind == 5:
        return before + bytes(rng.choice((0, 0x7F, 0x80, 0xFF)) for _ in piece[:16]) + after
    if kind == 6:
        return piece + before + after
    return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32-le", "utf-8-sig")))


def reworded(data: bytes, rng: Random) -> bytes:
    """Replace a word or a number of a text by another one."""
    text = data.decode("utf-8", "surrogateescape")
    words = list(re.finditer(r"[\w.-]+", text))
    if not words:
        return bent(data, rng)
    word = rng.choice(words)
    new = text[: word.start()] + rng.choice(WORDS) + text[word.end() :]
    return new.encode("utf-8", "surrogatepass")


def retyped_toml(data: bytes, rng: Random) -> bytes:
    """Give a setting another value, or repeat or drop a line."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    at = rng.randrange(len(lines))
    name, equal, _ = lines[at].partition("=")
    kind = rng.randrange(8)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines.insert(at, f"{rng.choice(['a', 'profile', 'profiles', 'datasets'])} = 1")
    elif equal:
        lines[at] = f"{name}= {rng.choice(TOML)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


class Written(str):
    """A piece of JSON text that is written as it stands."""


Members = list[tuple[str, Any]]  # of an object, in which a name may occur twice


def retyped_json(data: bytes, rng: Random) -> bytes:
    """Replace, drop, repeat or rename one value of a JSON document, at any depth."""
    try:
        document = [json.loads(data, object_pairs_hook=tuple)]  # an object is a tuple of pairs
    except (ValueError, RecursionError):
        return bent(data, rng)
    places = list(_places(document[0]))
    if len(places) > 200 and rng.random() < 0.5:
        places = places[:50]
    path = rng.choice(places)
    document[0] = _changed(document[0], path, lambda value: _other(value, rng))
    return _text(document[0]).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[int, ...]]:
    yield ()
    for index, inner in enumerate(value if isinstance(value, (list, tuple)) else ()):
        content = inner[1] if isinstance(value, tuple) else inner
        yield from ((index, *rest) for rest in _places(content))


def _changed(value: Any, path: tuple[int, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    items, at = list(value), path[0]
    if isinstance(value, tuple):
        items[at] = (items[at][0], _changed(items[at][1], path[1:], change))
        return tuple(items)
    items[at] = _changed(items[at], path[1:], change)
    return items


def _other(value: Any, rng: Random) -> Any:
    kind = rng.randrange(6)
    if kind < 3 or not isinstance(value, (list, tuple)) or not value:
        return Written(rng.choice(JSON))
    items, at = list(value), rng.randrange(len(value))
    if kind == 3:
        del items[at]
    elif kind == 4:
        items.insert(rng.randrange(len(items) + 1), items[at])
    elif isinstance(value, tuple):
        items[at] = (rng.choice(TEXTS), items[at][1])
    else:
        items *= rng.choice((2, 50))
    return type(value)(items)


def _text(value: Any) -> str:
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(name)}: {_text(v)}" for name, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


CHANGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": retyped_json,
    "toml": retyped_toml,
    "text": reworded,
    "binary": bent,
}


def large(seed: bytes, form: str, size: int) -> list[Callable[[], bytes]]:
    """Make inputs of about `size` bytes that are expensive for a careless decoder."""
    makers: list[Callable[[], bytes]] = [
        functools.partial(_filled, piece, size) for piece in (*PIECES, seed)
    ]
    if form == "json":
        document = json.loads(seed, object_pairs_hook=tuple)
        for path in _places(document):
            for text in ("9" * size, "[" * size, json.dumps("A" * size)):
                makers.append(functools.partial(_with, document, path, Written(text)))
            items = functools.reduce(_inner, path, document)
            if isinstance(items, list) and items:
                times = size // len(_text(items)) + 1
                makers.append(functools.partial(_with, document, path, items * times))
    return makers


def _filled(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece) + 1)


def _with(document: Any, path: tuple[int, ...], value: Any) -> bytes:
    return _text(_changed(document, path, lambda _: value)).encode()


def _inner(value: Any, at: int) -> Any:
    return value[at][1] if isinstance(value, tuple) else value[at]
