"""Credentials: where they are looked for, what is said of bad ones, and that none leaks."""

from __future__ import annotations

import json
import pickle
import resource
import stat
import traceback
from pathlib import Path

import pytest

from lyceum_magic import config, folders
from lyceum_magic.exceptions import ConfigError

CANARY = "lk_canary_5f0c7b1e"
ORIGIN = "https://api.lyceum.technology"


def write_login(text: str | bytes) -> Path:
    path = config.login_file()
    path.parent.mkdir()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def everything_said(exc: BaseException) -> str:
    """The text of an exception and of all that hangs on it, with what its frames hold."""
    said = "".join(traceback.format_exception(exc, chain=True))
    chain: BaseException | None = exc
    while chain is not None:
        said += repr(chain) + repr(chain.__dict__) + repr(chain.args)
        chain = chain.__cause__ or chain.__context__
    return said


# The order.


def test_nothing_means_the_embedded_server() -> None:
    assert config.find_account({}) is None


def test_the_environment_comes_before_the_login() -> None:
    write_login(json.dumps({"api_key": "lk_login", "base_url": "https://login.example"}))
    environ = {"LYCEUM_API_KEY": "lk_env", "LYCEUM_BASE_URL": "https://env.example/"}
    account = config.find_account(environ)
    assert account is not None
    assert (account.token.reveal(), account.base_url) == ("lk_env", "https://env.example")
    assert account.source == "LYCEUM_API_KEY"


def test_a_key_in_the_environment_alone_means_production() -> None:
    """The login's address belongs to the login's key: a key never travels to another's host."""
    write_login(json.dumps({"api_key": "lk_login", "base_url": "https://login.example"}))
    account = config.find_account({"LYCEUM_API_KEY": "lk_env"})
    assert account is not None
    assert account.base_url == ORIGIN


def test_the_login_has_its_own_address_organisation_and_refresh_token() -> None:
    path = write_login(
        json.dumps(
            {
                "api_key": "header.payload.signature",
                "base_url": "http://127.0.0.1:8000",
                "refresh_token": "again",
                "active_org_slug": "team",
                "dashboard_url": "https://dashboard.lyceum.technology",
            }
        )
    )
    account = config.find_account({})
    assert account == config.Account(
        "http://127.0.0.1:8000",
        config.Secret("header.payload.signature"),
        str(path),
        "team",
        config.Secret("again"),
        needs_proof=True,
    )


def test_what_the_environment_names_needs_no_proof() -> None:
    environment = {"LYCEUM_API_KEY": "lk_env", "LYCEUM_BASE_URL": "http://127.0.0.1:8000"}
    account = config.find_account(environment)
    assert account is not None
    assert not account.needs_proof


def test_the_organisation_of_the_environment_wins() -> None:
    write_login(json.dumps({"api_key": "lk_login", "active_org_slug": "login"}))
    account = config.find_account({"LYCEUM_ORG": "environment"})
    assert account is not None
    assert account.org == "environment"


@pytest.mark.parametrize("text", ["{}", '{"api_key": null}', '{"api_key": ""}'])
def test_a_login_without_a_key_is_no_login(text: str) -> None:
    write_login(text)
    assert config.find_account({}) is None


@pytest.mark.parametrize("key", ["", "   "])
def test_an_empty_variable_is_no_key(key: str) -> None:
    assert config.find_account({"LYCEUM_API_KEY": key}) is None


# What cannot be used.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{{"api_key": "{CANARY}"', "broken at line 1"),
        (f'{{"api_key":\n"{CANARY}",,}}', "broken at line 2"),
        (f'["{CANARY}"]', "holds a list"),
        ("", "broken at line 1"),
        (f'{{"api_key": ["{CANARY}"]}}', "`api_key` is not a string"),
        (f'{{"api_key": "{CANARY}", "base_url": 7}}', "`base_url` is not a string"),
        (f'{{"api_key": "{CANARY}", "refresh_token": {{}}}}', "`refresh_token` is not"),
        (CANARY.encode() + b"\xff", "not UTF-8"),
        ("[" * 100_000, "broken"),
    ],
)
def test_a_broken_login_is_one_sentence_that_names_the_file(text: str, said: str) -> None:
    path = write_login(text)
    with pytest.raises(ConfigError) as caught:
        config.find_account({})
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "\n" not in message
    assert CANARY not in everything_said(caught.value)


def test_a_login_that_is_a_folder_is_one_sentence() -> None:
    config.login_file().mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.find_account({})


@pytest.mark.parametrize(
    "url",
    [
        "api.lyceum.technology",
        "ftp://api.lyceum.technology",
        "https://",
        f"https://user:{CANARY}@host",
        "https://host/path",
        "https://host?query",
        "https://host:port",
        "https://host:99999",
        "https://[::1",
        "https://two words",
        "https://host\x00",
        "https://" + "x" * 70 + ".example",
    ],
)
def test_a_url_that_is_no_origin_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="LYCEUM_BASE_URL should name an origin") as caught:
        config.find_account({"LYCEUM_API_KEY": "lk_key", "LYCEUM_BASE_URL": url})
    assert CANARY not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        (" https://host ", "https://host"),
        ("https://HOST:443/", "https://host:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
    ],
)
def test_an_origin_is_kept_without_its_slash(url: str, origin: str) -> None:
    account = config.find_account({"LYCEUM_API_KEY": "lk_key", "LYCEUM_BASE_URL": url})
    assert account is not None
    assert account.base_url == origin


@pytest.mark.parametrize("key", [f"{CANARY}\nx", f"{CANARY} x", f"{CANARY}ü", f"{CANARY}\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(ConfigError, match="holds characters that no key has") as caught:
        config.find_account({"LYCEUM_API_KEY": key})
    assert CANARY not in everything_said(caught.value)


@pytest.mark.parametrize("org", ["two words", "ünïcode", "line\nbreak"])
def test_an_organisation_that_no_header_can_hold_is_refused(org: str) -> None:
    with pytest.raises(ConfigError, match="LYCEUM_ORG"):
        config.find_account({"LYCEUM_API_KEY": "lk_key", "LYCEUM_ORG": org})


# The secret.


def test_a_secret_shows_itself_nowhere() -> None:
    account = config.Account(ORIGIN, config.Secret(CANARY), "a test")
    shown = f"{account} {account!r} {account.token} {account.token!r} {account.token:>80} %s" % (
        account.token,
    )
    assert CANARY not in shown
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(account)
    assert CANARY not in everything_said(caught.value)


# The login that we write.


def test_a_written_login_is_for_its_user_alone_and_keeps_the_rest() -> None:
    path = write_login(json.dumps({"base_url": "http://127.0.0.1:8000", "code_model": "x"}))
    path.chmod(0o644)
    assert config.write_login(api_key=CANARY, refresh_token=None) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {
        "base_url": "http://127.0.0.1:8000",
        "code_model": "x",
        "api_key": CANARY,
        "refresh_token": None,
    }
    assert list(path.parent.iterdir()) == [path]


def test_a_first_login_makes_a_folder_for_its_user_alone() -> None:
    path = config.write_login(api_key=CANARY)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_leaves_the_login_as_it_was_and_no_part_of_the_new_one() -> None:
    path = config.write_login(api_key="lk_before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be written"):
            config.write_login(api_key=CANARY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert json.loads(path.read_text())["api_key"] == "lk_before"
    assert list(path.parent.iterdir()) == [path]


def test_a_login_that_cannot_be_written_is_one_sentence() -> None:
    config.login_file().parent.write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="cannot be") as caught:
        config.write_login(api_key=CANARY)
    assert CANARY not in everything_said(caught.value)


# The folders.


@pytest.mark.parametrize("home", ["named", None])
def test_each_environment_has_a_server_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    if home is None:
        monkeypatch.delenv("LYCEUM_MAGIC_HOME")
    else:
        monkeypatch.setenv("LYCEUM_MAGIC_HOME", str(tmp_path / home))
    monkeypatch.setattr("sys.prefix", "/environments/one")
    one = folders.server_folder()
    monkeypatch.setattr("sys.prefix", "/environments/two")
    assert folders.server_folder() != one
    assert folders.server_folder().parent == one.parent == folders.user_folder() / "servers"
    assert folders.user_folder() == tmp_path / "named" or home is None


def test_a_relative_home_is_the_same_folder_from_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LYCEUM_MAGIC_HOME", "state")
    assert folders.server_folder().parent == tmp_path / "state" / "servers"
    assert folders.journal_folder() == tmp_path / "state" / "journal"


# Homes in which no file can be.


@pytest.mark.parametrize("kind", ["/dev/null", "a file", "a long name"])
def test_a_home_that_holds_no_login_means_that_there_is_none(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    homes = {"a file": str(tmp_path / "a file"), "a long name": str(tmp_path / ("x" * 1000))}
    monkeypatch.setenv("HOME", homes.get(kind, kind))
    assert config.find_account({}) is None


@pytest.mark.parametrize("variable", ["HOME", "LYCEUM_MAGIC_HOME"])
def test_a_folder_whose_path_is_too_long_for_a_database_is_one_sentence(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LYCEUM_MAGIC_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path.joinpath(*["d" * 100] * 10)))
    for folder in (folders.user_folder, folders.journal_folder, folders.server_folder):
        with pytest.raises(ConfigError, match="set LYCEUM_MAGIC_HOME to a folder with a") as caught:
            folder()
        assert len(str(caught.value)) < 300
