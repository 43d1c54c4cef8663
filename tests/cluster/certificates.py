"""The cluster's own certificate authority: every program and every user is known by a certificate of it."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = dt.timedelta(days=30)
_SKEW = dt.timedelta(hours=1)  # so that a clock a little behind takes them too
_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and what vouches for it, as PEM."""

    key: bytes
    certificate: bytes

    def write(self, folder: Path, name: str) -> None:
        """To `name.key`, readable by its owner alone, and `name.crt`."""
        write_private(folder / f"{name}.key", self.key)
        (folder / f"{name}.crt").write_bytes(self.certificate)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates."""

    pair: Pair

    @classmethod
    def create(cls, now: dt.datetime) -> Self:
        """A new one, valid for 30 days from `now`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("embedfleet-test-cluster", ())
        builder = _builder(name, name, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return cls(_pair(key, builder.add_extension(_SIGNS, critical=True).sign(key, hashes.SHA256())))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The one that `pair.write(folder, "ca")` wrote."""
        return cls(Pair((folder / "ca.key").read_bytes(), (folder / "ca.crt").read_bytes()))

    def issue(
        self, common_name: str, organizations: Sequence[str] = (), *, addresses: Sequence[str] = (), now: dt.datetime
    ) -> Pair:
        """A key with its certificate: to Kubernetes the user `common_name` in the groups `organizations`.

        With `addresses` it is a server's, for these addresses and for the names of the API server.
        """
        signer = serialization.load_pem_private_key(self.pair.key, password=None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)  # ours, or kubeadm's
        issuer = x509.load_pem_x509_certificate(self.pair.certificate).subject
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name, organizations), issuer, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_USES), critical=False)
        if addresses:
            builder = builder.add_extension(_alternatives(addresses), critical=False)
        return _pair(key, builder.sign(signer, hashes.SHA256()))


def token_keys() -> tuple[bytes, bytes]:
    """The private and the public key, as PEM, that service accounts' tokens are signed and checked with."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _pem(key), public


def write_private(path: Path, content: bytes) -> None:
    """Make the file readable by its owner alone before anything is in it."""
    path.touch(mode=0o600)
    path.write_bytes(content)


_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
_SIGNS = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    key_encipherment=False,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - _SKEW).not_valid_after(now + _LIFE)


def _alternatives(addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    numbers = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    return x509.SubjectAlternativeName([*map(x509.DNSName, _NAMES), *numbers])


def _pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Pair:
    return Pair(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
