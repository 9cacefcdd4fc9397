"""The generated builder.toml."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.devstack import builderfile
from dscache.errors import ConfigError, UsageError
from dscache_builder import config as builder_config

CHECKOUT = Path(__file__).resolve().parents[3]
STORE = Config(endpoint="http://127.0.0.1:9", access_key="b", secret_key='q"\\uote')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "builder.toml"
    builderfile.write_new(path, state=tmp_path / "state", wheels=tmp_path / "wheels", store=STORE)
    return path


def test_the_builder_understands_it(file: Path, tmp_path: Path) -> None:
    assert builderfile.add_datasets(file, {"photos": tmp_path})
    loaded = builder_config.load(file)
    assert loaded.state == tmp_path / "state"
    assert loaded.find_links == [str(tmp_path / "wheels")]
    assert loaded.store.secret_key == STORE.secret_key
    assert loaded.datasets["photos"].handler == "photos"
    assert loaded.datasets["photos"].raw == tmp_path
    assert loaded.datasets["photos"].source == "dataset-handlers=={version}"


def test_only_its_owner_reads_it(file: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    builderfile.add_datasets(file, {"photos": tmp_path})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_the_user_wrote_stays(file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text() + '# mine\n[datasets.cats]\nhandler="x"\nraw="/r"\nsource="s"')
    assert builderfile.add_datasets(file, {"photos": tmp_path})
    assert "# mine" in file.read_text()
    assert set(builderfile.datasets(file)) == {"cats", "photos"}
    before = file.read_text()
    assert not builderfile.add_datasets(file, {"photos": tmp_path})
    assert file.read_text() == before


def test_other_raw_data_for_the_same_dataset(file: Path, tmp_path: Path) -> None:
    builderfile.add_datasets(file, {"photos": tmp_path})
    with pytest.raises(UsageError, match="change it there"):
        builderfile.add_datasets(file, {"photos": tmp_path / "other"})


def test_it_follows_the_store(file: Path) -> None:
    assert not builderfile.replace_endpoint(file, "http://127.0.0.1:8", "http://127.0.0.1:10")
    assert not builderfile.replace_endpoint(file, "http://127.0.0.1:9", "http://127.0.0.1:9")
    assert builderfile.replace_endpoint(file, "http://127.0.0.1:9", "http://127.0.0.1:10")
    assert tomllib.loads(file.read_text())["store"]["endpoint"] == "http://127.0.0.1:10"


def test_raw_words(tmp_path: Path) -> None:
    assert builderfile.parse_raw((f"photos={tmp_path}",)) == {"photos": tmp_path}
    for word, said in (
        ("photos", "expected NAME=DIR"),
        ("=x", "expected NAME=DIR"),
        ("photos=", "expected NAME=DIR"),
        (f"Photos={tmp_path}", "expected NAME=DIR"),
        ("photos=/no/such/place", "is not a directory"),
    ):
        with pytest.raises(UsageError, match=said):
            builderfile.parse_raw((word,))


def test_a_file_that_was_broken_by_hand(file: Path) -> None:
    file.write_text("state =")
    with pytest.raises(ConfigError, match=r"builder\.toml"):
        builderfile.datasets(file)


def test_names_that_are_no_handler_of_ours(file: Path, tmp_path: Path) -> None:
    """`--raw pairs=DIR` writes a handler that nobody has; once it is corrected, nothing is said."""
    builderfile.add_datasets(file, {"photos": tmp_path, "pairs": tmp_path})
    (warning,) = builderfile.missing_handlers(file)
    for word in ("[datasets.pairs]", str(file), "'pairs'", "photos", "`source`", "dscache up"):
        assert word in warning
    text = file.read_text().replace('handler = "pairs"', 'handler = "saliency"')
    file.write_text(text)
    assert builderfile.missing_handlers(file) == []
    file.write_text(text.replace("saliency", "mine").replace("dataset-handlers==", "mine=="))
    assert builderfile.missing_handlers(file) == []


def test_the_handlers_that_come_with_it() -> None:
    project = CHECKOUT / "handlers/dataset-handlers/pyproject.toml"
    points = tomllib.loads(project.read_text())["project"]["entry-points"]["dscache.handlers"]
    assert sorted(points) == sorted(builderfile.HANDLERS)
