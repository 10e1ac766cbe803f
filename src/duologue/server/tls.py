"""A certificate of our own, so that a phone on the same network may use its microphone: browsers want https for that.

Nobody has signed it, so a browser warns once. A real one goes to --certificate and --key.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
from pathlib import Path

from duologue.errors import ServerError

_DAYS = 365


def own_certificate(folder: Path, *, host: str) -> tuple[Path, Path]:
    """A certificate and its key for this machine's names and addresses; made when there is none that still holds.

    Raises:
        ServerError: they cannot be written.
    """
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = _names(host)
    if not _holds(certificate, names):
        try:
            _make(certificate, key, names)
        except OSError as error:
            raise ServerError(f"{folder}: cannot write a certificate ({error.strerror or error})") from error
    return certificate, key


def _names(host: str) -> list[str]:
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    with contextlib.suppress(OSError):  # a machine whose own name is not known anywhere
        names += [str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(socket.gethostname(), None)]
    return sorted({name for name in [*names, host] if name not in ("", "0.0.0.0", "::")})


def _holds(certificate: Path, names: list[str]) -> bool:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    known = {str(name.value) for name in alternatives}
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    return set(names) <= known and found.not_valid_after_utc > soon


def _make(certificate: Path, key: Path, names: list[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "duologue")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    key.parent.mkdir(parents=True, exist_ok=True)
    private = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _general(name: str):  # type: ignore[no-untyped-def]
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
