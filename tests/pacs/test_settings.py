"""pacs.yaml: what is wrong is said before anything is asked, and nothing leaves this machine unless that is told."""

from pathlib import Path

import click
import pytest
import yaml

from ctinterp_dagster.cli.pacs import interpolate_options
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.pacs import load_pacs
from ctinterp_dagster.pacs.settings import secret

WEB = {"protocol": "dicomweb", "url": "http://127.0.0.1:8042/dicom-web"}
DIMSE = {"protocol": "dimse", "host": "localhost", "port": 4242, "aet": "ORTHANC", "calling_aet": "CTINTERP"}
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "pacs.md"


def _written(folder: Path, **servers: dict[str, object]) -> Path:
    (folder / "pacs.yaml").write_text(yaml.safe_dump({"servers": servers}))
    return folder / "pacs.yaml"


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (WEB | {"url": "https://pacs.example/dicom-web"}, "pacs.example is another machine: say `remote: true`"),
        (WEB | {"url": "http://pacs.example/dicom-web", "remote": True}, "another machine is asked by https:// only"),
        (WEB | {"url": "http://me:secret@localhost/dicom-web"}, "url must hold no password"),
        (WEB | {"url": "localhost:8042"}, "url must start with https://"),
        (DIMSE | {"host": "10.0.0.7"}, "10.0.0.7 is another machine: say `remote: true`"),
        (DIMSE | {"host": "localhost.example"}, "localhost.example is another machine"),
        (DIMSE | {"aet": "A" * 17}, "servers.archive.dimse.aet"),
        (DIMSE | {"password": "x"}, "servers.archive.dimse.password: Extra inputs are not permitted"),
    ],
)
def test_a_server_that_is_not_safe_or_not_right_is_refused(
    tmp_path: Path, server: dict[str, object], said: str
) -> None:
    with pytest.raises(ParamsError, match=said) as caught:
        load_pacs(_written(tmp_path, archive=server))
    assert "secret" not in str(caught.value)


def test_a_mistake_is_told_with_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "pacs.yaml").write_text(yaml.safe_dump({"servers": {"archive": DIMSE}}).replace("4242", "70000"))
    with pytest.raises(ParamsError, match=r"^pacs.yaml: servers.archive.dimse.port: .* 65535, got 70000 \(line 6\)$"):
        load_pacs(tmp_path / "pacs.yaml")


def test_another_machine_is_asked_where_that_is_told(tmp_path: Path) -> None:
    web = {"protocol": "dicomweb", "url": "https://pacs.example/dicom-web", "remote": True}
    settings = load_pacs(_written(tmp_path, one=web, two=DIMSE | {"host": "10.0.0.7", "remote": True}))
    assert settings.server("one")[1].remote
    with pytest.raises(ParamsError, match="no server was named: expected --server one or two"):
        settings.server(None)
    with pytest.raises(ParamsError, match="no server was named: expected one below `servers`"):
        load_pacs(_written(tmp_path)).server(None)


def test_the_only_server_need_not_be_named(tmp_path: Path) -> None:
    assert load_pacs(_written(tmp_path, archive=WEB)).server(None)[0] == "archive"
    with pytest.raises(MissingInputError, match="is missing: write it as docs/howto"):
        load_pacs(tmp_path / "none.yaml")


def test_secrets_are_of_a_server_and_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTINTERP_PACS_ARCHIVE_TOKEN", "t")
    assert (secret("archive", "TOKEN"), secret("other", "TOKEN")) == ("t", "")


def test_the_file_of_the_manual_is_right(tmp_path: Path) -> None:
    shown = HOWTO.read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "pacs.yaml").write_text(shown)
    settings = load_pacs(tmp_path / "pacs.yaml")
    assert settings.watch
    assert settings.watch.source in settings.servers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--spacing", "0"), "0.0 is not in the range"),
        (("--spacing", "1", "--factor", "2"), "give --spacing or --factor, not both"),
        (("--magic",), "No such option '--magic'"),
    ],
)
def test_a_watch_refuses_options_that_interpolate_would_refuse(options: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        interpolate_options(options)
