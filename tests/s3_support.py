"""A real S3 server for tests: one Ceph gateway for a whole session, a fresh prefix per test.

The workers of a session share it: whoever needs it first starts it, whoever leaves last stops
it, and a watcher stops it when all of them died. A test that kills the gateway takes
``own_ceph``, which nobody shares.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "infra" / "s3"
KEY, SECRET = "tidemark", "tidemark-secret"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
REQUIRED = "TIDEMARK_S3"


@dataclass(frozen=True)
class Ceph:
    """One server, in one folder."""

    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{(self.folder / 'port').read_text().strip()}"

    def run(self, verb: str, *arguments: object) -> None:
        command = [SCRIPTS / "ceph.sh", verb, self.folder, *arguments]
        done = subprocess.run(
            list(map(str, command)),
            env=os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2_000:]

    def up(self) -> None:
        self.run("up", free_port())

    def down(self) -> None:
        self.run("down", "KILL")
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_gateway(self) -> None:
        self.run("kill-gateway")

    def start_gateway(self) -> None:
        self.run("start-gateway")

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return what a process must have in its environment; ``url`` of a proxy before it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def make_user(self, name: str) -> dict[str, str]:
        """Make somebody who may do nothing yet; return the key for the environment."""
        secret = f"secret-of-{name}"
        command = ["radosgw-admin", "-c", self.folder / "ceph.conf", "user", "create"]
        told = {"uid": name, "display-name": name, "access-key": name, "secret-key": secret}
        subprocess.run(
            [*map(str, command), *(f"--{key}={value}" for key, value in told.items())],
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}

    def make_bucket(self) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name


def free_port() -> int:
    """Return a port that is free, as is the one 1,000 above for the monitor."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port < 64_000:
                with contextlib.suppress(OSError):
                    other.bind(("127.0.0.1", port + 1000))
                    return port


def need_ceph() -> None:
    """Skip where Ceph is not installed, unless its tests are required."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not missing:
        return
    why = f"{', '.join(missing)} not installed: run infra/s3/install.sh"
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(why)
    pytest.skip(why)


@contextlib.contextmanager
def locked(folder: Path):
    with (folder / "s3.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def users(folder: Path) -> list[int]:
    """Return the processes that use the shared server and are alive."""
    told = (folder / "s3-users").glob("*") if (folder / "s3-users").is_dir() else ()
    return [int(each.name) for each in told if Path("/proc", each.name).exists()]


def join(folder: Path) -> Ceph:
    ceph = Ceph(folder / "ceph")
    with locked(folder):
        (folder / "s3-users").mkdir(exist_ok=True)
        (folder / "s3-users" / str(os.getpid())).touch()
        if not (folder / "s3-up").exists():
            ceph.up()
            (folder / "s3-up").touch()
            subprocess.run(
                ["setsid", "-f", sys.executable, __file__, folder],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                check=True,
            )  # fmt: skip
    return ceph


def leave(folder: Path, pid: int | None = None) -> None:
    with locked(folder):
        if pid is not None:
            (folder / "s3-users" / str(pid)).unlink(missing_ok=True)
        if not users(folder) and (folder / "s3-up").exists():
            Ceph(folder / "ceph").down()
            (folder / "s3-up").unlink()


def watch(folder: Path) -> None:
    """Stop the shared server when nobody is left who could."""
    while folder.is_dir() and (folder / "s3-up").exists():
        time.sleep(2)
        if not users(folder):
            leave(folder)


@pytest.fixture(scope="session")
def ceph(tmp_path_factory):
    """The session's S3 server; nobody kills it."""
    need_ceph()
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    server = join(folder)
    yield server
    leave(folder, os.getpid())


@pytest.fixture(scope="module")
def own_ceph(tmp_path_factory):
    """A server of this module's own, whose gateway may be killed."""
    need_ceph()
    server = Ceph(tmp_path_factory.mktemp("own") / "ceph")
    server.up()
    yield server
    server.down()


@pytest.fixture(scope="session")
def s3_bucket(ceph) -> str:
    """A bucket of this worker's own."""
    return ceph.make_bucket()


@pytest.fixture
def s3_root(ceph, s3_bucket, monkeypatch) -> str:
    """An address in a real bucket where a lake may be made; the environment says how."""
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    # The probe of a fresh lake has tests of its own; elsewhere it would only cost time.
    monkeypatch.setattr("lake.probe.SHORT", (2 << 10,) * 2)
    return f"s3://{s3_bucket}/{uuid.uuid4().hex[:12]}/lake"


@pytest.fixture(params=["folder", "s3"])
def any_root(request, tmp_path):
    """A folder and a bucket, one after the other, where a lake may be made."""
    if request.param == "folder":
        return tmp_path / "lake"
    return request.getfixturevalue("s3_root")


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
