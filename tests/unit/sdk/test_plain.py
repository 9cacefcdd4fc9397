"""Handlers that know nothing of the SDK, and finding handlers."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from dscache_sdk import DatasetHandler, HandlerContractError, OptionsError
from dscache_sdk.plain import is_plain, load_handler, plain_splits, run_plain
from support.article import Article


def returning(value: object) -> type[Article]:
    return type("Returning", (Article,), {"as_tfrecord": lambda self: value})


def test_a_plain_handler_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    config: dict[str, Any] = {
        "size": 3,
        "names": ["b-train.tfrecord", "a-val.tfrecord-00000-of-00001"],
    }
    paths = run_plain(Article, config, "raw", tmp_path / "work")
    assert paths == [tmp_path / "work" / name for name in config["names"]]
    assert all(path.stat().st_size for path in paths)
    assert Path.cwd() == tmp_path
    assert str(tmp_path / "raw").encode() in paths[0].read_bytes()


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="'sise': there is no such option; did you mean 'size'"):
        run_plain(Article, {"sise": 1}, "raw", tmp_path)


def test_options_that_are_no_dict_allow_everything(tmp_path: Path) -> None:
    loose = type("Loose", (Article,), {"config_options": staticmethod(lambda: None)})
    assert run_plain(loose, {"size": 1, "names": ["x.tfrecord"]}, "raw", tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned a NoneType, not a list"),
        ("x.tfrecord", "returned a str, not a list"),
        ([], "returned no files"),
        ([3], "which is not a path"),
        ([""], "which is not a path"),
        (["x.zip"], "must end in .tfrecord"),
        ([".tfrecord"], "must end in .tfrecord"),
        (["gone.tfrecord"], "which does not exist"),
        (["folder.tfrecord"], "not a regular file"),
        (["link.tfrecord"], "not a regular file"),
        (["x.tfrecord", "x.tfrecord"], "two files 'x.tfrecord'"),
    ],
)
def test_what_as_tfrecord_may_not_return(tmp_path: Path, value: object, message: str) -> None:
    (tmp_path / "x.tfrecord").write_bytes(b"")
    (tmp_path / "folder.tfrecord").mkdir()
    (tmp_path / "link.tfrecord").symlink_to(tmp_path / "x.tfrecord")
    with pytest.raises(HandlerContractError, match=message):
        run_plain(returning(value), {}, "raw", tmp_path)


def test_splits_from_names() -> None:
    names = {
        "x-train.tfrecord": "train",
        "x-val.tfrecord": "val",
        "x-val.tfrecord-00000-of-00002": "val",
        "photos-holdout.tfrecord-00000-of-00002": "holdout",
        "val_03.tfrecord": "val",
        "val3.tfrecord": "val",
        "Validation.tfrecord": "val",
        "test.tfrecord": "test",
        "my_test_set-train-7.tfrecord": "train",
        "trains.tfrecord": "train",
        "evaluation.tfrecord": "train",
        "data.tfrecord": "train",
    }
    paths = [Path("some/val") / name for name in names]
    assert plain_splits(paths) == list(zip(names.values(), paths, strict=True))


def test_is_plain() -> None:
    assert is_plain(Article)
    assert not is_plain(type("Full", (DatasetHandler,), {}, name="full"))


def test_installed_handlers_are_found() -> None:
    from dataset_handlers import Photos

    assert load_handler("photos") is Photos


def test_a_missing_handler_names_what_is_installed() -> None:
    with pytest.raises(HandlerContractError, match=r"no handler 'fotos' .* installed: .*photos"):
        load_handler("fotos")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["no.such.module:X"], "cannot be imported: No module"),
        (["dscache_sdk.plain:Nothing"], "cannot be imported"),
        (["dscache_sdk.plain:load_handler"], "is a function, not a class"),
        (["pathlib:Path"], "lacks config_options, as_tfrecord, tf_records_mapper"),
        (["pathlib:Path", "dscache_sdk:Text"], "several packages offer"),
    ],
)
def test_handlers_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, values: list[str], message: str
) -> None:
    points = [metadata.EntryPoint("odd", value, "dscache.handlers") for value in values]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    with pytest.raises(HandlerContractError, match=message):
        load_handler("odd")
