"""The documentation site that `make docs` builds: complete, without dead links, self-contained."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import dscache
import dscache_sdk

DOCS = Path(__file__).resolve().parents[2] / "docs"
SVG = "http://www.w3.org/2000/svg"  # a name, not an address


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does."""
    options = ["--quiet", "--fresh-env", "--fail-on-warning", "--doctree-dir", f"{out}-doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "docs"
    built = build(DOCS, out)
    assert (built.returncode, built.stderr) == (0, "")
    return out


@dataclass
class Page(HTMLParser):
    """What a page of HTML defines, links to and loads."""

    text: str
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.loaded += addresses_in_css(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag in ("a", "area") and "href" in values:
            self.links.append(values["href"])
        elif tag != "a":  # scripts, style sheets, icons, pictures, frames
            self.loaded += [values[name] for name in ("src", "href", "data") if name in values]
            self.loaded += values.get("srcset", "").split()


def addresses_in_css(text: str) -> list[str]:
    """What `url(…)` and `@import` name."""
    return re.findall(r"""(?:url\(|@import)\s*["']?(?!data:)([^"')\s;]+)""", text)


def pages_of(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def dead_links(site: Path) -> Iterator[str]:
    pages = pages_of(site)
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not file.is_file() or (anchor and anchor not in pages[file].anchors):
                yield f"{path.relative_to(site)}: {link}"


def loaded_from_outside(site: Path) -> Iterator[str]:
    found = [(path, name) for path, page in pages_of(site).items() for name in page.loaded]
    for path in site.rglob("*.css"):
        found += [(path, name) for name in addresses_in_css(path.read_text("utf-8"))]
    for path in [*site.rglob("*.js"), *site.rglob("*.html")]:
        text = path.read_text("utf-8")
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
        for script in [text] if path.suffix == ".js" else scripts:
            found += [
                (path, name) for name in re.findall(r"""["'`]((?:https?:)?//[^"'`]+)""", script)
            ]
    for path, name in found:
        if re.match(r"(?:[a-z]+:)?//", name) and name != SVG:
            yield f"{path.relative_to(site)}: {name}"


def test_every_markdown_page_is_on_the_site(site: Path) -> None:
    built = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in DOCS.glob("*.md")} <= built


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    assert sum(len(page.links) for page in pages_of(site).values()) > 500
    assert list(dead_links(site)) == []


def test_links_between_files_become_links_between_pages(site: Path) -> None:
    start = Page((site / "index.html").read_text("utf-8"))
    assert {"handlers.html", "operations.html#the-builder"} <= set(start.links)


def test_nothing_is_loaded_from_outside(site: Path) -> None:
    assert list(loaded_from_outside(site)) == []


@pytest.mark.parametrize("package", [dscache, dscache_sdk], ids=lambda package: package.__name__)
def test_every_public_name_is_on_the_packages_page(site: Path, package: ModuleType) -> None:
    page = Page((site / "api" / f"{package.__name__}.html").read_text("utf-8"))
    assert {f"{package.__name__}.{name}" for name in package.__all__} <= page.anchors


def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    dead = ["no-such-page.md", "index.md#no-such-heading", "#no-such-heading"]
    shutil.copy(DOCS / "conf.py", tmp_path)
    (tmp_path / "index.md").write_text("# Start\n\n" + " ".join(f"[x]({link})" for link in dead))
    built = build(tmp_path, tmp_path / "out")
    assert built.returncode != 0
    assert built.stderr.count("[myst.xref_missing]") == len(dead)


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        '<script>import("//cdn.example.org/x.js")</script>',
        '<link rel="stylesheet" href="https://cdn.example.org/x.css">',
        '<img src="//cdn.example.org/x.png">',
        "<style>@import 'https://cdn.example.org/x.css';</style>",
        "<style>p { background: url(https://cdn.example.org/x.png) }</style>",
    ],
)
def test_what_comes_from_outside_is_noticed(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.html").write_text(f'<a href="https://example.org">a link is fine</a>{text}')
    assert len(set(loaded_from_outside(tmp_path))) == 1


def test_dead_links_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<p id="here"><a href="#here"><a href="#x"><a href="y.html">'
    )
    assert list(dead_links(tmp_path)) == ["index.html: #x", "index.html: y.html"]
