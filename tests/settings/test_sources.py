"""A file of settings is read whole, or refused with its name, the key and what was probably meant."""

from pathlib import Path

import pytest

from agentws.settings import SettingsError
from agentws.settings.sources import Given, read_file, unknown_variables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agentws.toml"


def refused(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_file(str(path), named_by="--config")
    return str(caught.value)


def test_the_keys_and_the_tables_keep_their_place(path: Path) -> None:
    path.write_text('port = 1\nenvironment = "staging"\n[env.staging]\nport = 2\n[env.test]\npage = true\n')
    file = read_file(str(path), named_by="--config")
    assert file.top == {"port": Given(1, str(path), True), "env": Given("staging", str(path), True)}
    assert file.tables == {
        "staging": {"port": Given(2, f"{path} [env.staging]", True)},
        "test": {"page": Given(True, f"{path} [env.test]", True)},
    }


def test_the_environment_may_be_named_by_env_where_there_are_no_tables(path: Path) -> None:
    path.write_text('env = "staging"')
    assert read_file(str(path), named_by="--config").top["env"].value == "staging"


WRONG = [
    ("prot = 1", "{path}: there is no setting 'prot'; did you mean port?"),
    ("completely_else = 1", "{path}: there is no setting 'completely_else'"),
    ("[server]\nport = 1", "{path}: there is no setting 'server'"),
    ("[env.staging]\npool_sice = 1", "{path} [env.staging]: there is no setting 'pool_sice'; did you mean pool_size?"),
    ("[env.stagin]\nport = 1", "{path} [env.stagin]: there is no environment 'stagin'; did you mean staging?"),
    ('[env]\nstaging = "x"', "{path} [env.staging]: is no table; environment = 'staging' chooses an environment"),
    ('[env.test]\nenv = "test"', "{path} [env.test]: env cannot be set in the table of an environment"),
    ('[env.test]\nenvironment = "test"', "{path} [env.test]: there is no setting 'environment'"),
    ('env = "test"\nenvironment = "test"', "{path}: env and environment are the same; give one of them"),
    ("port = ", "--config: {path} is not TOML: "),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_file_that_cannot_be_used_says_what_is_wrong_and_where(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    assert refused(path).startswith(said.format(path=path))


def test_a_file_that_cannot_be_read_is_named_with_whoever_named_it(path: Path) -> None:
    assert refused(path) == f"--config: {path} cannot be read: No such file or directory"
    path.write_bytes(b"port = 1 # \xff")
    assert refused(path) == f"--config: {path} is not UTF-8"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AGENTWS_POOLSIZE", ["AGENTWS_POOLSIZE is not a setting; did you mean AGENTWS_POOL_SIZE?"]),
        ("AGENTWS_COLOUR", ["AGENTWS_COLOUR is not a setting"]),
        ("AGENTWS_POOL_SIZE", []),
        ("AGENTWS_CONFIG", []),
        ("AGENTWS_TOKEN", []),
        ("POOL_SIZE", []),
        ("agentws_poolsize", []),
    ],
)
def test_a_variable_that_only_looks_like_a_setting_is_told(name: str, said: list[str]) -> None:
    assert list(unknown_variables({name: "secret"})) == said
