"""Content Credentials (C2PA): a signed statement in a result of how it was made.

Needs the extra `c2pa`. The statement says that the photo was edited by a trained model, and names
the source photo, whose own credentials are kept. It holds no thumbnails, which would show the
source.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import faceage
from faceage.errors import ConfigError, OutputError
from faceage.imaging.photos import media_type

EDITED_BY_MODEL = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_HINT = "Give a PEM file of the certificate, its issuers and the private key."


class ContentSigner:
    """Signs results with a certificate.

    Args:
        path: PEM file of the signing certificate, the certificates of its issuers, and the private
            key (EC P-256, P-384 or P-521, RSA, or Ed25519), without a password.

    Raises:
        ConfigError: the package c2pa-python is not installed, or the file holds no such key and
            certificate.
    """

    def __init__(self, path: Path) -> None:
        try:
            import c2pa
        except ImportError:
            raise ConfigError(
                "Signing needs the package c2pa-python.", "Run pip install 'faceage[c2pa]'."
            ) from None
        try:
            blocks = list(_pem_blocks(path.read_text("ascii")))
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"Cannot read {path}.", _HINT) from None
        keys = [text for kind, text in blocks if kind.endswith("PRIVATE KEY")]
        certificates = [text for kind, text in blocks if kind == "CERTIFICATE"]
        if len(keys) != 1 or not certificates:
            found = f"{len(certificates)} certificates and {len(keys)} private keys"
            raise ConfigError(f"{path} holds {found}.", _HINT)
        algorithm = getattr(c2pa.C2paSigningAlg, _find_algorithm(path, keys[0]))
        chain, key = "\n".join(certificates).encode(), keys[0].encode()
        try:
            self._signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, key, None))
        except c2pa.C2paError as error:
            raise ConfigError(f"{path} cannot be used to sign: {error}.", _HINT) from None
        settings = {
            "builder": {"thumbnail": {"enabled": False}},
            "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},  # no connections
        }
        self._context = c2pa.Context.from_dict(settings)

    def sign(self, data: bytes, path: Path, source: Path | None = None) -> bytes:
        """The bytes of a result with its credentials.

        Args:
            data: the file, a JPEG, PNG, WebP or TIFF.
            path: its name; the suffix determines the format.
            source: the photo that was edited.

        Raises:
            OutputError: the file cannot be signed, such as with an expired certificate.
        """
        import c2pa

        action = {"action": "c2pa.edited", "digitalSourceType": EDITED_BY_MODEL}
        manifest = {
            "claim_generator_info": [{"name": "faceage", "version": faceage.__version__}],
            "title": path.name,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        signed = BytesIO()
        try:
            with c2pa.Builder(json.dumps(manifest), context=self._context) as builder:
                builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
                if source and (kind := media_type(source.suffix)):
                    ingredient = {"title": source.name, "relationship": "parentOf"}
                    with source.open("rb") as stream:
                        builder.add_ingredient(json.dumps(ingredient), kind, stream)
                builder.sign(self._signer, media_type(path.suffix), BytesIO(data), signed)
        except (c2pa.C2paError, OSError) as error:
            raise OutputError(f"Cannot sign {path}: {error}.", "Check the certificate.") from None
        return signed.getvalue()


def _pem_blocks(text: str) -> Iterator[tuple[str, str]]:
    """The kind of each block of a PEM file, such as CERTIFICATE, and its text."""
    kind, lines = "", list[str]()
    for line in text.splitlines():
        if line.startswith("-----BEGIN "):
            kind, lines = line[11:].rstrip("- "), []
        lines.append(line)
        if kind and line.startswith("-----END "):
            yield kind, "\n".join([*lines, ""])
            kind = ""


def _find_algorithm(path: Path, key: str) -> str:
    """The name of the signature algorithm of a private key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded: Any = load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError):  # TypeError: with a password
        raise ConfigError(f"Cannot read the private key in {path}.", _HINT) from None
    if isinstance(loaded, rsa.RSAPrivateKey):
        return "PS256"
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return "ED25519"
    if isinstance(loaded, ec.EllipticCurvePrivateKey) and loaded.curve.name in _ALGORITHMS:
        return _ALGORITHMS[loaded.curve.name]
    raise ConfigError(f"The private key in {path} is of a kind that C2PA does not allow.", _HINT)
