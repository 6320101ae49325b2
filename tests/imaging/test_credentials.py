"""Content Credentials, verified by the c2pa library itself."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceage.errors import ConfigError, OutputError
from faceage.imaging.credentials import EDITED_BY_MODEL, ContentSigner
from faceage.imaging.photos import is_own_result, open_photo, save_photo

c2pa = pytest.importorskip("c2pa", reason="needs the extra c2pa")
x509 = pytest.importorskip("cryptography.x509")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402

NOW = datetime.datetime.now(datetime.UTC)


def _certificate(name: str, key: Any, issuer: str, issuer_key: Any, days: int = 30) -> Any:
    def named(text: str) -> Any:
        return x509.Name([
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, text),
        ])  # fmt: skip

    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False
    )  # fmt: skip
    is_root = name == issuer
    usage["key_cert_sign" if is_root else "digital_signature"] = True
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=60))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if not is_root:
        purposes = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def write_pem(path: Path, key: Any, days: int = 30) -> Path:
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Root", root_key, "Root", root_key)
    leaf = _certificate("Photographer", key, "Root", root_key, days)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem) + secret)
    return path


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    return write_pem(tmp_path_factory.mktemp("pem") / "signer.pem", key)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path)
    return path


def _read(path: Path) -> tuple[dict[str, Any], str]:
    with path.open("rb") as stream, c2pa.Reader(f"image/{path.suffix[1:]}", stream) as reader:
        return json.loads(reader.json()), str(reader.json())


def _save(signer: ContentSigner, photo: Path, path: Path) -> Path:
    source = open_photo(photo)
    return save_photo(source, source.pixels, path, synthetic={"age": 70}, signer=signer)


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "tiff"])
def test_a_signed_result_is_valid(pem: Path, photo: Path, tmp_path: Path, suffix: str) -> None:
    path = _save(ContentSigner(pem), photo, tmp_path / f"photo.age70.{suffix}")
    found, text = _read(path)
    # The test's own root is unknown; everything else is valid.
    codes = {s["code"] for s in found.get("validation_status", [])}
    assert codes <= {"signingCredential.untrusted"}
    manifest = found["manifests"][found["active_manifest"]]
    assert EDITED_BY_MODEL in text
    assert [i["title"] for i in manifest["ingredients"]] == ["photo.jpg"]
    assert "thumbnail" not in text
    assert is_own_result(path)  # the mark in the metadata is still there
    assert open_photo(path).pixels.shape == (64, 64, 3)


def test_a_change_after_signing_is_found(pem: Path, photo: Path, tmp_path: Path) -> None:
    path = _save(ContentSigner(pem), photo, tmp_path / "photo.age70.jpeg")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    codes = {status["code"] for status in _read(path)[0]["validation_status"]}
    assert "assertion.dataHash.mismatch" in codes


def test_other_kinds_of_keys(photo: Path, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    path = _save(
        ContentSigner(write_pem(tmp_path / "rsa.pem", key)), photo, tmp_path / "photo.age70.jpeg"
    )
    manifest = _read(path)[0]
    assert manifest["manifests"][manifest["active_manifest"]]["signature_info"]["alg"] == "Ps256"


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "0 certificates and 0 private keys"), ("\xff", "Cannot read")],
)
def test_a_file_without_key_or_certificate(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "signer.pem"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        ContentSigner(path)
    with pytest.raises(ConfigError, match="Cannot read"):
        ContentSigner(tmp_path / "missing.pem")


def test_an_expired_certificate_is_refused_and_nothing_written(photo: Path, tmp_path: Path) -> None:
    expired = write_pem(tmp_path / "old.pem", ec.generate_private_key(ec.SECP256R1()), days=-1)
    with pytest.raises(OutputError, match="not valid at time of signing"):
        _save(ContentSigner(expired), photo, tmp_path / "photo.age70.jpeg")
    assert not (tmp_path / "photo.age70.jpeg").exists()


def test_the_command_signs(
    run: Callable[..., Any], pem: Path, astronaut: Path, tmp_path: Path
) -> None:
    out = tmp_path / "old.jpeg"
    run("age", astronaut, "--to", "70", "--out", out, "--sign", pem)
    assert EDITED_BY_MODEL in _read(out)[1]
    run("age", out, "--include-synthetic", "--to", "5", "--out", tmp_path / "y.jpeg", "--sign", pem)
    assert len(_read(tmp_path / "y.jpeg")[0]["manifests"]) == 2  # its history
