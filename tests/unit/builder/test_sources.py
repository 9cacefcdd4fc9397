"""Sources of handler code, and what uv and git print about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscache_builder.environments.sources import (
    GitSource,
    IndexSource,
    PathSource,
    available,
    listed,
    locked_source,
    missing_version,
    one_line,
    parse_source,
    parse_tags,
    same_version,
    shown,
    split_pins,
    wheel_parts,
    without_handler,
)
from dscache_builder.failure import EnvironmentFailed

COMMIT = "a" * 40
OTHER = "b" * 40


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("hand-lers=={version}", IndexSource("hand-lers==1.0", "hand-lers==1.0", "hand-lers")),
        ("x[cv] == {version}", IndexSource("x[cv] == 1.0", "x[cv]==1.0", "x")),
        (
            "git+https://host/x.git@{version}#subdirectory=sub",
            GitSource(
                "git+https://host/x.git@1.0#subdirectory=sub",
                "https://host/x.git",
                "1.0",
                "#subdirectory=sub",
            ),
        ),
        (
            "git+ssh://git@host/x.git@{version}",
            GitSource("git+ssh://git@host/x.git@1.0", "ssh://git@host/x.git", "1.0", ""),
        ),
        (
            "git+file:///srv/x@v{version}",
            GitSource("git+file:///srv/x@v1.0", "file:///srv/x", "v1.0", ""),
        ),
        ("/srv/package", PathSource("/srv/package", Path("/srv/package"))),
        ("w/x-{version}-a-b-c.whl", PathSource("w/x-1.0-a-b-c.whl", Path("w/x-1.0-a-b-c.whl"))),
    ],
)
def test_a_template_and_a_version_make_a_source(template: str, expected: object) -> None:
    source = parse_source(template, "1.0")
    assert source == expected
    if not isinstance(source, IndexSource) or " " not in source.text:
        assert locked_source(source.text) == source


@pytest.mark.parametrize(
    "template",
    [
        "handlers",
        "handlers==1.0",
        "handlers>={version}",
        "git+https://h/x",
        "git+{version}",
        "-r x",
    ],
)
def test_a_template_that_is_not_understood(template: str) -> None:
    with pytest.raises(EnvironmentFailed, match="source"):
        parse_source(template, "1.0")


@pytest.mark.parametrize("version", ["", "--index-url", "1.0 x", "1;x", "1\nx", "../1", "a/b"])
def test_a_version_is_data(version: str) -> None:
    with pytest.raises(EnvironmentFailed, match="handler_version"):
        parse_source("handlers=={version}", version)


def test_credentials_are_not_shown() -> None:
    assert shown("git+https://user:word@host/x and http://t@h/") == (
        "git+https://***@host/x and http://***@h/"
    )
    with pytest.raises(EnvironmentFailed) as raised:
        parse_source("git+https://user:word@host/x", "1.0")
    assert "word" not in raised.value.message


def test_pins_are_divided_into_hashed_ones_and_addresses() -> None:
    compiled = (
        "# a comment\n"
        "blake3==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "/srv/x-1-a-b-c.whl \\\n    --hash=sha256:cc\n"
        "isal==1.7 \\\n    --hash=sha256:dd\n"
        f"other @ git+https://h/o@{COMMIT}\n"
        f"mine @ git+https://h/m@{COMMIT}\n"
    )
    hashed, direct = split_pins(compiled)
    assert hashed == (
        "blake3==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "isal==1.7 \\\n    --hash=sha256:dd\n"
    )
    assert direct.count("@ git+") == 2
    kept = without_handler(compiled, "git+https://h/m@", "/srv/x-1")
    assert kept == f"{hashed}other @ git+https://h/o@{COMMIT}\n"


def test_annotated_tags_mean_their_commits() -> None:
    listing = (
        f"{OTHER}\trefs/tags/v1\n{COMMIT}\trefs/tags/v1^{{}}\n"
        f"{OTHER}\trefs/tags/v2\n{OTHER}\trefs/heads/main\n"
    )
    assert parse_tags(listing) == {"v1": COMMIT, "v2": OTHER}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("my_handlers-1.0.0-py3-none-any.whl", ("my-handlers", "1.0.0")),
        ("x-1.0+a.b-1-cp311-cp311-linux_x86_64.whl", ("x", "1.0+a.b")),
        ("x-1.0.tar.gz", ("", "")),
    ],
)
def test_name_and_version_of_a_wheel(name: str, parts: tuple[str, str]) -> None:
    assert wheel_parts(Path(name)) == parts


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.0-rc1", "1.0rc1", True),
        ("1.0+a.b", "1.0+A_b", True),
        ("1.0", "1.0.0", True),
        ("1.0", "1.0.1", False),
        ("release-3", "release_3", True),
        ("release-3", "release-4", False),
        ("release-3", "3", False),
    ],
)
def test_spellings_of_a_version(one: str, other: str, same: bool) -> None:
    """As PEP 440 has them; a tag that is no version is compared as a wheel's name spells it."""
    assert same_version(one, other) is same


def test_a_missing_version_is_recognised_across_line_breaks() -> None:
    output = "cause: Because there is no version of\n  some-thing==9.9 and you require it, we"
    assert missing_version(output) == ("some-thing", "9.9")
    assert missing_version("error: connection refused") is None


def test_available_versions_come_from_uv_and_from_folders() -> None:
    wheels = [Path(f"thing-{version}-py3-none-any.whl") for version in ("1.9.0", "1.10.0")]
    several = "only the following versions of thing are available:\n thing==1.2\nand you require"
    assert available("thing", several, wheels) == ["1.2", "1.9.0", "1.10.0"]
    candidate = Path("thing-1.10.0rc1-py3-none-any.whl")
    no_version = Path("thing-nightly-py3-none-any.whl")
    assert available("thing", "", [*wheels, candidate, no_version]) == [
        "nightly", "1.9.0", "1.10.0rc1", "1.10.0",
    ]  # fmt: skip
    upper = "Because only thing<=1.10.0 is available and you require"
    assert available("thing", upper, wheels) == ["1.9.0", "1.10.0"]
    assert available("thing", upper, []) == ["1.10.0 and older"]
    assert available("thing", "thing was not found", []) == []


def test_long_lists_show_the_newest() -> None:
    assert listed([]) == "none"
    assert listed([str(number) for number in range(20)]).startswith("…, 8, 9")


def test_the_gist_of_an_output() -> None:
    output = "error: Failed\n  cause: outer\n  cause: tcp to https://u:p@h/ refused\n"
    assert one_line(output) == "Failed; tcp to https://***@h/ refused"
    assert one_line("just this\n") == "just this"
