"""Where settings come from, and what is said when they cannot be used."""

from __future__ import annotations

import errno
import pickle
import pwd
import stat
import tomllib
from pathlib import Path

import pytest

from dscache import config
from dscache.config import Config
from dscache.errors import ConfigError, UnknownProfile


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory without any configuration, and a working directory `work` beside it."""
    (tmp_path / "work" / "deep").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), **more}


def write_user_file(home: Path, text: str) -> Path:
    path = home / ".config" / "dscache" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(home: Path, *, profile: str | None = None, **more: str) -> Config:
    return config.load(
        profile=profile, environ=environ(home, **more), cwd=home.parent / "work" / "deep"
    )


def test_defaults(home: Path) -> None:
    loaded = load(home)
    assert (loaded.endpoint, loaded.bucket, loaded.region) == ("", "dscache", "us-east-1")
    assert loaded.home == home / ".cache" / "dscache"
    assert loaded.profile == ""


def test_each_source_overrides_the_one_before(home: Path) -> None:
    assert load(home).bucket == "dscache"
    user_file = write_user_file(home, 'bucket = "user"\n')
    assert load(home).bucket == "user"
    project_file = home.parent / "work" / "dscache.toml"
    project_file.write_text('bucket = "project"\n')
    assert load(home).bucket == "project"
    assert load(home, DSCACHE_BUCKET="variable").bucket == "variable"
    flags = config.load(
        overrides={"bucket": "flag", "endpoint": None},
        environ=environ(home, DSCACHE_BUCKET="variable", DSCACHE_ENDPOINT="http://e:1"),
        cwd=project_file.parent,
    )
    assert (flags.bucket, flags.endpoint) == ("flag", "http://e:1")
    assert flags.origin["bucket"] == "the command line"
    assert load(home).origin["bucket"] == str(project_file)
    project_file.unlink()
    assert load(home).origin["bucket"] == str(user_file)


def test_profiles(home: Path) -> None:
    write_user_file(
        home,
        'profile = "a"\nregion = "everywhere"\n'
        '[profiles.a]\nbucket = "of-a"\n[profiles.b]\nbucket = "of-b"\n',
    )
    assert (load(home).profile, load(home).bucket) == ("a", "of-a")
    assert load(home, profile="b").bucket == "of-b"
    assert load(home, DSCACHE_PROFILE="b").bucket == "of-b"
    assert load(home, profile="a", DSCACHE_PROFILE="b").bucket == "of-a"
    assert load(home, profile="b").region == "everywhere"
    assert load(home, profile="b").origin["bucket"].endswith("config.toml [profiles.b]")


def test_the_project_may_name_the_profile(home: Path) -> None:
    write_user_file(home, 'profile = "a"\n[profiles.a]\n[profiles.b]\nbucket = "of-b"\n')
    (home.parent / "work" / "dscache.toml").write_text('profile = "b"\n')
    assert load(home).bucket == "of-b"


@pytest.mark.parametrize(
    ("more", "asked_by"),
    [({"profile": "x"}, "--profile"), ({"DSCACHE_PROFILE": "x"}, "$DSCACHE_PROFILE")],
)
def test_a_profile_that_is_nowhere(home: Path, more: dict[str, str], asked_by: str) -> None:
    path = write_user_file(home, "[profiles.a]\n")
    with pytest.raises(UnknownProfile) as caught:
        load(home, **more)
    assert caught.value.profile == "x"
    assert "'x'" in str(caught.value)
    assert asked_by in str(caught.value)
    assert str(path) in str(caught.value)


def test_aws_variables_give_way_to_files_and_to_dscache_variables(home: Path) -> None:
    aws = {"AWS_ACCESS_KEY_ID": "aws", "AWS_SECRET_ACCESS_KEY": "aws-secret", "AWS_REGION": "eu"}
    assert (load(home, **aws).access_key, load(home, **aws).region) == ("aws", "eu")
    assert load(home, **aws, DSCACHE_ACCESS_KEY="ours").access_key == "ours"
    write_user_file(home, 'access_key = "file"\n')
    assert load(home, **aws).access_key == "file"
    assert load(home, **aws, DSCACHE_ACCESS_KEY="ours").access_key == "ours"


def test_where_the_files_are(home: Path, tmp_path: Path) -> None:
    assert config.user_file(environ(home)) == home / ".config" / "dscache" / "config.toml"
    assert config.user_file(environ(home, XDG_CONFIG_HOME="/x")) == Path("/x/dscache/config.toml")
    assert config.user_file(environ(home, DSCACHE_CONFIG="/y/c.toml")) == Path("/y/c.toml")
    assert config.default_home(environ(home, XDG_CACHE_HOME="/c")) == Path("/c/dscache")
    assert load(home, DSCACHE_HOME="/big/disk").home == Path("/big/disk")


def test_a_project_file_above_the_working_directory_is_found(home: Path) -> None:
    deep = home.parent / "work" / "deep"
    assert config.project_file(deep) is None
    (home.parent / "work" / "dscache.toml").write_text("")
    assert config.project_file(deep) == home.parent / "work" / "dscache.toml"
    (deep / "dscache.toml").write_text("")
    assert config.project_file(deep) == deep / "dscache.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bucket = ", "not TOML"),
        ("buckket = 'x'", "unknown setting 'buckket'"),
        ("bucket = 3", "bucket: expected a string, got 3"),
        ("[profiles.a]\nprofile = 'b'", "unknown setting 'profile'"),
    ],
)
def test_a_file_that_cannot_be_used(home: Path, text: str, said: str) -> None:
    path = write_user_file(home, text)
    name = "a" if "profiles" in text else None
    with pytest.raises(ConfigError) as caught:
        load(home, profile=name)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_text(home: Path) -> None:
    write_user_file(home, "").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(home)


def test_no_secret_in_repr(home: Path) -> None:
    loaded = load(
        home,
        DSCACHE_ACCESS_KEY="visible-nowhere",
        DSCACHE_SECRET_KEY="s3cr3t",
        DSCACHE_SESSION_TOKEN="t0k3n",
    )
    assert (loaded.access_key, loaded.secret_key) == ("visible-nowhere", "s3cr3t")
    assert loaded.session_token == "t0k3n"
    assert not any(word in repr(loaded) for word in ("visible-nowhere", "s3cr3t", "t0k3n"))


def test_an_endpoint_is_asked_for_with_a_remedy(home: Path) -> None:
    with pytest.raises(ConfigError, match="dscache up"):
        load(home).require_endpoint()
    with pytest.raises(ConfigError, match="DSCACHE_ENDPOINT"):
        load(home, DSCACHE_ENDPOINT="127.0.0.1:9000").require_endpoint()
    assert load(home, DSCACHE_ENDPOINT="http://e:1/").require_endpoint() == "http://e:1"


def test_a_written_profile_works_at_once(home: Path) -> None:
    path = config.user_file(environ(home))
    config.write_profile(path, "local", {"endpoint": "http://127.0.0.1:1", "secret_key": "s"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (load(home).profile, load(home).endpoint) == ("local", "http://127.0.0.1:1")


def test_writing_a_profile_keeps_the_rest(home: Path) -> None:
    path = write_user_file(home, 'profile = "mine"\nregion = "r"\n[profiles.mine]\nbucket = "m"\n')
    path.chmod(0o644)
    config.write_profile(path, "local", {"bucket": "l"})
    config.write_profile(path, "local", {"bucket": "l2"})
    assert tomllib.loads(path.read_text()) == {
        "profile": "mine",
        "region": "r",
        "profiles": {"mine": {"bucket": "m"}, "local": {"bucket": "l2"}},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_removing_a_profile(home: Path) -> None:
    path = config.user_file(environ(home))
    config.remove_profile(path, "local")
    assert not path.exists()
    config.write_profile(path, "local", {"bucket": "l"})
    config.write_profile(path, "other", {"bucket": "o"})
    config.remove_profile(path, "local")
    config.remove_profile(path, "never-there")
    assert tomllib.loads(path.read_text()) == {"profiles": {"other": {"bucket": "o"}}}
    assert load(home).profile == ""


def test_a_file_in_a_folder_that_is_closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read: .*Permission denied"):
        load(home)


def test_without_a_working_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = home / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    write_user_file(home, 'bucket = "user"\n')
    assert config.load(environ=environ(home)).bucket == "user"


def test_a_limit_of_the_cache(home: Path) -> None:
    assert load(home).cache_limit is None
    assert load(home, DSCACHE_CACHE_LIMIT="1.5GB").cache_limit == 3 << 29
    with pytest.raises(ConfigError, match=r"\$DSCACHE_CACHE_LIMIT: cache_limit: 'much' is not a"):
        load(home, DSCACHE_CACHE_LIMIT="much")
    path = write_user_file(home, "cache_limit = 3000\n")
    assert load(home).cache_limit == 3000
    for value in ("1.5", "true", "-1", '"-1"', '["1GB"]'):
        path.write_text(f"cache_limit = {value}\n")
        with pytest.raises(ConfigError, match=rf"{path}: cache_limit: .* size"):
            load(home)


def test_a_config_can_be_sent_to_another_process(home: Path) -> None:
    for each in (Config(endpoint="http://store"), load(home, DSCACHE_ENDPOINT="http://store")):
        assert pickle.loads(pickle.dumps(each)) == each


USABLE = {
    "endpoint": ["http://h", "https://store.example.org/", "http://10.0.0.1:65535", "HTTP://H:1",
                 "http://[::1]:9000", "https://proxy.example.org/s3/", "http://minio_1:9000"],
    "public_endpoint": ["https://a.b.c.:443"],
    "console": ["https://console.example.org/browser/dscache"],
    "bucket": ["dscache", "My_bucket.2", "b"],
    "region": ["us-east-1", "everywhere"],
    "access_key": ["AKIA+/=,:x"],
    "secret_key": ["a b", "schlüssel", "+/=%"],
    "session_token": ["FwoGZXIvYXdzE+/=="],
    "client_name": ["Жанна @ lab", "写真"],
    "home": ["/a b/ü", "/x\udcff"],
    "shared_homes": ["/x:/y"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in USABLE.items() for v in values]
)
def test_values_that_settings_may_have(name: str, value: str, home: Path) -> None:
    loaded = load(home, **{f"DSCACHE_{name.upper()}": value})
    assert loaded.origin[name] == f"$DSCACHE_{name.upper()}"


def test_a_config_made_by_hand_is_checked_before_it_is_used() -> None:
    for endpoint in ("http://user:s3cr3t@h", "http://[::1", "h:1", "http://h:99999"):
        for made in (Config(endpoint=endpoint), Config("http://h", public_endpoint=endpoint)):
            with pytest.raises(ConfigError, match=r"the caller: (public_)?endpoint") as refused:
                made.require_public_endpoint() if made.public_endpoint else made.require_endpoint()
            assert "s3cr3t" not in str(refused.value)
    assert Config("http://h/").require_public_endpoint() == "http://h"
    assert Config("http://h", public_endpoint="http://p/").require_public_endpoint() == "http://p"


def test_a_user_without_a_home_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: object) -> object:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    with pytest.raises(ConfigError, match=r"\$HOME: '~': .*no (such )?home directory"):
        config.load(environ={}, cwd=home)


@pytest.mark.parametrize("setting", ["aws_sdk", "profile", "origin"])
def test_what_is_no_setting(setting: str, home: Path) -> None:
    write_user_file(home, f'[profiles.a]\n{setting} = "x"\n')
    with pytest.raises(ConfigError, match=f"unknown setting '{setting}'"):
        load(home, profile="a")
