"""Self-signed certificates for 127.0.0.1, made on the spot."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from embedfleet_server.app.tls import CERTIFICATE, KEY


def pair(
    name: str,
    password: bytes | None = None,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
) -> tuple[bytes, bytes]:
    """Certificate and key as PEM, for 127.0.0.1 under the common name `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    closed = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem), key.private_bytes(pem, form, closed)


def write(directory: Path, certificate: bytes, key: bytes) -> Path:
    """The two files, as a mounted Secret has them; returns `directory`."""
    directory.mkdir(exist_ok=True)
    (directory / CERTIFICATE).write_bytes(certificate)
    (directory / KEY).write_bytes(key)
    return directory
