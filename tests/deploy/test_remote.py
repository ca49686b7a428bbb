"""Data on an S3 store that really speaks S3, and a cache that several checkouts share."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import dagster as dg
import pytest
from moto.server import ThreadedMotoServer

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.dvc import DvcProject
from ctinterp_dagster.orchestration.publish import build_published
from ctinterp_dagster.orchestration.settings import Publish
from ctinterp_dagster.records import write_json
from ctinterp_dagster.tracking import assert_tracked, listing, recorded, track
from tests.deploy.conftest import MAKE, Shell, surroundings

BUCKET = "scans"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A running S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    address = f"http://127.0.0.1:{port}"
    client(address).create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


def client(address: str) -> "boto3.client":
    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_DEFAULT_REGION"],
    )


def objects(address: str) -> int:
    return int(client(address).list_objects_v2(Bucket=BUCKET)["KeyCount"])


def volumes(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((root / "data" / "ingest" / "volumes").glob("*"))}


@pytest.mark.slow
def test_data_goes_to_s3_and_comes_back_whole_or_one_scan_alone(
    project: Path, tmp_path: Path, shell: Shell, endpoint: str
) -> None:
    shell(project, "dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
    shell(project, "dvc", "remote", "modify", "store", "endpointurl", endpoint)
    shell(project, "git", "commit", "--quiet", "--all", "--message", "remote")
    shell(project, "dvc", "push", **KEYS)
    assert objects(endpoint) == 4  # three scans and the list of them
    assert "everything is up to date" in shell(project, "dvc", "push", **KEYS).lower()
    assert "test" not in (project / ".dvc" / "config").read_text().replace("endpointurl", "")

    shell(tmp_path, "git", "clone", "--quiet", str(project), "whole")
    shell(tmp_path / "whole", "dvc", "pull", **KEYS)
    assert volumes(tmp_path / "whole") == volumes(project)

    part = tmp_path / "part"
    shell(tmp_path, "git", "clone", "--quiet", str(project), "part")
    shell(part, "dvc", "fetch", "data/ingest/volumes/scan-1.nii", **KEYS)
    cached = [path for path in (part / ".dvc" / "cache").rglob("*") if path.is_file() and path.suffix != ".dir"]
    assert [path.read_text() for path in cached] == ["voxels of scan 1"]
    shell(part, "dvc", "checkout", "data/ingest/volumes/scan-1.nii")
    assert volumes(part) == {"scan-1.nii": "voxels of scan 1"}


@pytest.mark.slow
def test_every_published_state_comes_back_from_a_store_that_keeps_versions(
    project: Path, tmp_path: Path, shell: Shell, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(endpoint).put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for name, value in (KEYS | dict(surroundings(tmp_path))).items():
        monkeypatch.setenv(name, value)
    shell(project, "dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/seen")
    shell(project, "dvc", "remote", "modify", "store", "endpointurl", endpoint)
    shell(project, "dvc", "remote", "modify", "store", "version_aware", "true")
    layout, published = Layout(project), build_published(project, Publish(branch="retrain", tag=False, push=True))
    commits, made = [], []
    for count in (3, 2, 4):
        (project / "make.py").write_text(MAKE.replace("range(3)", f"range({count})"))
        layout.raw.mkdir(parents=True, exist_ok=True)
        (layout.raw / "scan.nii").write_text(f"the scan as it was with {count}")
        track(layout)
        shell(project, "dvc", "repro", "--quiet")
        write_json(layout.report("promote") / "decision.json", {"promoted": False, "findings": [], "challenger": "1"})
        before = DvcProject.at(project).read().stages["ingest"]
        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([published], instance=instance)
        assert recorded(layout) == listing(layout.raw)
        assert_tracked(layout)
        after = DvcProject.at(project).read().stages["ingest"]
        assert (after.data_version, after.changed) == (before.data_version, False)
        commits.append(shell(project, "git", "rev-parse", "retrain").strip())
        made.append(volumes(project))
    shell(tmp_path, "git", "clone", "--quiet", "--branch", "retrain", str(project), "whole")
    for commit, files in zip(commits, made, strict=True):
        shell(tmp_path / "whole", "git", "checkout", "--quiet", commit)
        shell(tmp_path / "whole", "dvc", "pull", "--force")
        assert volumes(tmp_path / "whole") == files
        assert (tmp_path / "whole" / "data" / "raw" / "scan.nii").read_text() == f"the scan as it was with {len(files)}"


@pytest.mark.slow
def test_one_more_scan_adds_one_scan_to_the_store(project: Path, shell: Shell, endpoint: str) -> None:
    shell(project, "dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
    shell(project, "dvc", "remote", "modify", "store", "endpointurl", endpoint)
    shell(project, "dvc", "push", **KEYS)
    script = project / "make.py"
    script.write_text(script.read_text().replace("range(3)", "range(4)"))
    shell(project, "dvc", "repro", "--quiet")
    before = objects(endpoint)
    shell(project, "dvc", "push", **KEYS)
    assert objects(endpoint) == before + 2  # the scan, and the new list


@pytest.mark.slow
def test_checkouts_share_a_cache_and_hold_no_copy(project: Path, tmp_path: Path, shell: Shell) -> None:
    shared = tmp_path / "shared"
    for option in (["cache", "dir", str(shared)], ["config", "cache.shared", "group"],
                   ["config", "cache.type", "hardlink,symlink"]):  # fmt: skip
        shell(project, "dvc", *option)
    shell(project, "git", "commit", "--quiet", "--all", "--message", "shared cache")
    shell(project, "dvc", "commit", "--quiet", "--force")
    shell(project, "dvc", "checkout", "--relink", "--quiet")
    shell(tmp_path, "git", "clone", "--quiet", str(project), "second")
    shell(tmp_path / "second", "dvc", "checkout")
    assert volumes(tmp_path / "second") == volumes(project)
    name = "data/ingest/volumes/scan-0.nii"
    assert (tmp_path / "second" / name).stat().st_ino == (project / name).stat().st_ino
    assert all(path.stat().st_mode & 0o020 for path in shared.rglob("*") if path.is_dir())  # the group may add
