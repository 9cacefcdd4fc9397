"""Which credentials may be sent to which endpoint, as a table."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dscache import config
from dscache.credentials import CHAIN, Owner, Source, may_be_sent, withheld
from dscache.errors import ConfigError
from dscache.trust import trust

O = Owner  # noqa: E741
# who chose the credentials: whether an endpoint of the user's, and one of a project's, gets them
TABLE = {
    O.USER: (True, False),
    O.PROJECT: (True, True),
    O.DSCACHE: (True, True),
    O.AWS: (True, False),
    O.CALLER: (True, True),
    O.MACHINE: (True, False),
}
SECRETS = ("access_key", "secret_key", "session_token")
VARIABLES = {
    O.DSCACHE: ("DSCACHE_ACCESS_KEY", "DSCACHE_SECRET_KEY", "DSCACHE_SESSION_TOKEN"),
    O.AWS: ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
}
ENDPOINTS = ("endpoint", "public_endpoint")
CHOSEN_BY = (None, O.USER, O.PROJECT, O.DSCACHE, O.AWS)


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(Owner)
    for credential, (to_the_user_s, to_the_project_s) in TABLE.items():
        assert may_be_sent(credential, O.PROJECT) is to_the_project_s
        for endpoint in set(Owner) - {O.PROJECT}:
            assert may_be_sent(credential, endpoint) is to_the_user_s


def test_all_credentials_of_all_owners_to_both_endpoints() -> None:
    owners = (None, *Owner)
    for setting, at in itertools.product(ENDPOINTS, Owner):
        for chosen in itertools.product(owners, repeat=3):
            by = dict(zip(SECRETS, chosen, strict=True))
            settings = {setting: "e", **{name: "s" if by[name] else "" for name in SECRETS}}
            sources = {name: Source(owner, "there") for name, owner in by.items() if owner}
            found = withheld(settings, {**sources, setting: Source(at, "here")})
            kept = {name for name in SECRETS if (o := by[name]) and not TABLE[o][at is O.PROJECT]}
            if by["access_key"] is None:
                kept = {CHAIN} if at is O.PROJECT else set()
            assert {(item.endpoint, item.credential) for item in found} == {
                (setting, name) for name in kept
            }


class Place:
    """A user's file and a project's file, written anew for each case."""

    def __init__(self, folder: Path) -> None:
        self.user_folder = folder / "home" / ".config" / "dscache"
        self.project = folder / "work" / "dscache.toml"
        self.user_folder.mkdir(parents=True)
        self.project.parent.mkdir()

    def load(self, settings: dict[str, Owner | None]) -> config.Config:
        """Load a configuration in which each setting has been chosen by that owner."""
        environ = {"HOME": str(self.user_folder.parents[1])}
        texts = {O.USER: "", O.PROJECT: ""}
        for name, owner in settings.items():
            if owner in texts:
                texts[owner] += f'{name} = "{_value(name, owner)}"\n'
            elif owner is not None:
                variable = (
                    VARIABLES[owner][SECRETS.index(name)]
                    if name in SECRETS
                    else f"DSCACHE_{name.upper()}"
                )
                environ[variable] = _value(name, owner)
        (self.user_folder / "config.toml").write_text(texts[O.USER])
        self.project.write_text(texts[O.PROJECT])
        return config.load(environ=environ, cwd=self.project.parent)


def _value(name: str, owner: Owner) -> str:
    return f"http://{owner.name.lower()}" if "endpoint" in name else f"{name}-of-{owner.name}"


@pytest.mark.parametrize("at", [O.USER, O.PROJECT, O.DSCACHE])
@pytest.mark.parametrize("setting", ENDPOINTS)
def test_every_configuration_follows_the_table(setting: str, at: Owner, tmp_path: Path) -> None:
    place = Place(tmp_path)
    refused = 0
    for chosen in itertools.product(CHOSEN_BY, repeat=3):
        by = dict(zip(SECRETS, chosen, strict=True))
        used = [by[name] for name in SECRETS if by[name]] if by["access_key"] else [O.MACHINE]
        if all(owner is None or TABLE[owner][at is O.PROJECT] for owner in used):
            loaded = place.load({setting: at, **by})
            assert loaded.aws_sdk is (by["access_key"] is None)
        else:
            refused += 1
            with pytest.raises(ConfigError, match="dscache trust"):
                place.load({setting: at, **by})
    assert (refused > 0) is (at is O.PROJECT)


def test_trust_lets_the_sdk_look_for_credentials(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(ConfigError, match="this machine"):
        place.load({"endpoint": O.PROJECT})
    trust(place.project, place.user_folder)
    assert place.load({"endpoint": O.PROJECT}).aws_sdk
