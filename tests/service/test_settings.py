from __future__ import annotations

from pathlib import Path

import pytest
from closeby.service.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOSEBY_CONFIG", raising=False)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CLOSEBY_{name.upper()}", raising=False)


def test_flag_before_environment_before_file_before_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "closeby.toml"
    config.write_text('port = 1\nhost = "file"\nmax_limit = 11\ndata_dir = "from-file"\n')
    monkeypatch.setenv("CLOSEBY_PORT", "2")
    monkeypatch.setenv("CLOSEBY_HOST", "environment")
    settings = load_settings(config, port=3, host=None)
    assert (settings.port, settings.host, settings.max_limit) == (3, "environment", 11)
    assert settings.data_dir == Path("from-file")
    assert settings.max_points == 10_000


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "closeby.toml"
    config.write_text("port = 99\n")
    monkeypatch.setenv("CLOSEBY_CONFIG", str(config))
    assert load_settings().port == 99


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "prot: there is no such setting"),
        ("port = 70000", "port: "),
        ("port = [", "not TOML"),
        ('log_level = "loud"', "log_level: "),
        ("max_points = 0", "max_points: "),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, named: str) -> None:
    config = tmp_path / "closeby.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=named):
        load_settings(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "missing.toml")


def test_the_api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().read_api_key() is None
    key_file = tmp_path / "key"
    key_file.write_text("  s3cret \nignored\n")
    assert load_settings(api_key_file=key_file).read_api_key() == "s3cret"
    monkeypatch.setenv("CLOSEBY_API_KEY", "other")
    settings = load_settings()
    assert settings.read_api_key() == "other"
    assert "other" not in repr(settings)
    with pytest.raises(SettingsError, match="both") as refused:
        load_settings(api_key_file=key_file)
    assert "other" not in str(refused.value)


def test_an_unusable_key_file_is_no_open_door(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(api_key_file=tmp_path / "missing").read_api_key()
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match="empty"):
        load_settings(api_key_file=tmp_path / "empty").read_api_key()
    with pytest.raises(SettingsError, match="empty"):
        load_settings(api_key="  ")
