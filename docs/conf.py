"""The documentation site: Sphinx with MyST and Furo; `make docs` builds it into build/docs.

Zensical 0.0.73 (with mkdocstrings) and Sphinx 9.0 (with Furo and myst-parser) were tried on these
pages. Both check links and anchors, make API pages from Google-style docstrings, load nothing from
elsewhere, and take 4 (Zensical) or 8 CPU seconds and about 20 more locked packages. Sphinx won:
its releases are stable, and a docstring whose markup does not parse is an error, where Zensical's
strict mode lets the warnings of mkdocstrings pass. mkdocstrings also still installs mkdocs 1.6,
which is unmaintained, and Zensical's theme has scripts that load from a CDN once a page has a
diagram; Furo's has none.
"""
# Copyright 2026 The dscache authors. SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.roles import XRefRole

import dscache

DOCS = Path(__file__).resolve().parent

project = "dscache"
version = release = dscache.__version__
copyright = "2026 The dscache authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
highlight_language = "text"  # of blocks that name none
default_role = "py:obj"

myst_heading_anchors = 4  # the same anchors as on a code host

autodoc_mock_imports = ["tensorflow", "torch"]  # named in annotations; neither is worth loading
napoleon_use_ivar = True  # attributes of a NamedTuple are members already
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"dscache {release}"
html_copy_source = html_show_sphinx = False


class Code(XRefRole):
    """Single backticks in a docstring, as in Markdown: code, and a link where that is an API name.

    The role of Sphinx would read `<key>.<nonce>` as a title with a target, and drop `~/` and `!`.
    """

    explicit_title_re = re.compile(r"(?!)")

    def process_link(
        self, env: Any, refnode: Any, _has_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        return title, target


class Links:
    """Links as a code host follows them, from file to file, become links between the site's pages.

    They differ where a page includes a file from above `docs`: `](../README.md#x)` leads to the
    page that includes README.md, and `](docs/x.md)` in README.md to `x.md`.
    """

    target = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)#\s]+")
    included = re.compile(r"^```\{include\} (\S+)", re.MULTILINE)

    def __init__(self) -> None:
        self.shown_as = {
            (DOCS / name).resolve(): page
            for page in DOCS.glob("*.md")
            for name in self.included.findall(page.read_text("utf-8"))
        }

    def of_page(self, _app: Sphinx, _page: str, content: list[str]) -> None:
        self._replace(DOCS, content)

    def of_include(self, _app: Sphinx, path: Path, _page: str, content: list[str]) -> None:
        self._replace((DOCS / path).resolve().parent, content)

    def _replace(self, folder: Path, content: list[str]) -> None:
        def on_the_site(match: re.Match[str]) -> str:
            file = (folder / match[0]).resolve()
            return os.path.relpath(self.shown_as.get(file, file), DOCS)

        content[0] = self.target.sub(on_the_site, content[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_role_to_domain("py", "obj", Code(), override=True)
    links = Links()
    app.connect("source-read", links.of_page)
    app.connect("include-read", links.of_include)
