"""Certificates and kubeconfigs, made with the openssl command: one authority, and a key pair for each component."""

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "3650"


@dataclass(frozen=True)
class Subject:
    """Who a certificate is for: user name, groups, and, for servers, the names they answer to (openssl's notation)."""

    name: str
    groups: tuple[str, ...] = ()
    alternative_names: tuple[str, ...] = ()


def server_names(*addresses: str) -> tuple[str, ...]:
    """All the names that an API server at these addresses is called by."""
    suffixes = ("", ".default", ".default.svc", ".default.svc.cluster.local")
    names = ["localhost", *(f"kubernetes{suffix}" for suffix in suffixes)]
    return tuple([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])


class Authority:
    """A certificate authority in `folder`; what is there already is kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.key, self.certificate = folder / "ca.key", folder / "ca.crt"
        if not self.certificate.exists():
            _key(self.key)
            _openssl(
                "req",
                "-x509",
                "-new",
                "-key",
                self.key,
                "-days",
                DAYS,
                "-subj",
                "/CN=hone-dev",
                "-out",
                self.certificate,
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
            )

    def issue(self, file: str, subject: Subject) -> tuple[Path, Path]:
        """Paths of the certificate `<file>.crt` and its key, made if missing; good for client and server use."""
        certificate, key = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        if not certificate.exists():
            _key(key)
            name = "".join(f"/O={group}" for group in subject.groups) + f"/CN={subject.name}"
            names = ",".join(subject.alternative_names)
            alternative = (f"subjectAltName={names}",) if names else ()
            _openssl(
                "req",
                "-x509",
                "-new",
                "-key",
                key,
                "-CA",
                self.certificate,
                "-CAkey",
                self.key,
                "-days",
                DAYS,
                "-subj",
                name,
                "-out",
                certificate,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                "extendedKeyUsage=clientAuth,serverAuth",
                *(part for extension in alternative for part in ("-addext", extension)),
            )
        return certificate, key

    def signing_key(self, file: str) -> Path:
        """A bare key for service-account tokens, made if missing."""
        key = self.folder / f"{file}.key"
        if not key.exists():
            _key(key)
        return key

    def kubeconfig(self, path: Path, server: str, file: str, subject: Subject) -> Path:
        """Write a kubeconfig for `subject` with all embedded, readable by its owner alone, whole or not at all."""
        certificate, key = self.issue(file, subject)
        cluster = {"server": server, "certificate-authority-data": _base64(self.certificate)}
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "hone",
            "clusters": [{"name": "hone", "cluster": cluster}],
            "users": [{"name": "hone", "user": user}],
            "contexts": [{"name": "hone", "context": {"cluster": "hone", "user": "hone"}}],
        }
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(content, indent=1))  # JSON is YAML.
        temporary.rename(path)
        return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _key(path: Path) -> None:
    path.touch(mode=0o600)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True)
