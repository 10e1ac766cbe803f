"""A certificate of our own."""

from __future__ import annotations

import ssl

import pytest
from cryptography import x509

from duologue.errors import ServerError
from duologue.server.tls import own_certificate


def test_it_is_made_once_names_the_host_and_opens_with_its_key(tmp_path):
    certificate, key = own_certificate(tmp_path / "tls", host="192.168.7.9")
    before = certificate.read_bytes()
    assert own_certificate(tmp_path / "tls", host="192.168.7.9") == (certificate, key)
    assert certificate.read_bytes() == before and key.stat().st_mode & 0o077 == 0
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    names = x509.load_pem_x509_certificate(before).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert {"localhost", "127.0.0.1", "192.168.7.9"} <= {str(name.value) for name in names.value}


def test_another_host_or_a_broken_file_makes_a_new_one(tmp_path):
    certificate, _ = own_certificate(tmp_path, host="localhost")
    before = certificate.read_bytes()
    own_certificate(tmp_path, host="10.0.0.1")
    assert certificate.read_bytes() != before
    certificate.write_text("nothing")
    own_certificate(tmp_path, host="10.0.0.1")
    assert x509.load_pem_x509_certificate(certificate.read_bytes())


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="cannot write a certificate"):
        own_certificate(tmp_path / "file" / "tls", host="localhost")
