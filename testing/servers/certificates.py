"""Certificates for servers on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(folder: Path) -> Path:
    """Writes ``tls.pem`` and its key ``tls.key``; returns the certificate that clients trust."""
    certificate = folder / "tls.pem"
    options = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    host = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", *options, *host, *files],
        check=True,
        capture_output=True,
    )
    return certificate
