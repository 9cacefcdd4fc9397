"""One page of a listing (ListObjectsV2), from its XML. Pure."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from ..errors import StoreError
from .objects import ListedObject

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


class Page(NamedTuple):
    """The objects of one page. `next` is the token of the next page, "" on the last."""

    entries: list[ListedObject]
    next: str


def parse_page(body: bytes, prefix: str) -> Page:
    """Read the response to a listing of `prefix`. Raises StoreError."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(body)
        if root.tag.rpartition("}")[2] != "ListBucketResult":
            raise ValueError(f"it is an element <{root.tag}>")
        namespace = root.tag.partition("}")[0] + "}" if "}" in root.tag else ""
        entries = [_entry(item, namespace) for item in root.iter(f"{namespace}Contents")]
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        raise StoreError(
            f"listing of {prefix!r}: the response is not an S3 listing ({str(error)[:200]}); "
            "is the endpoint that of an object store, or does a proxy ask for a login?"
        ) from error
    return Page(entries, _text(root, namespace, "NextContinuationToken"))


def _entry(item: Element, namespace: str) -> ListedObject:
    modified = datetime.datetime.fromisoformat(_text(item, namespace, "LastModified"))
    return ListedObject(
        unquote_plus(_text(item, namespace, "Key")),
        _text(item, namespace, "ETag").strip('"'),
        int(_text(item, namespace, "Size")),
        modified.timestamp(),
    )


def _text(element: Element, namespace: str, name: str) -> str:
    return element.findtext(f"{namespace}{name}") or ""
