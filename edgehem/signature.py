"""The signature of a bundle: ``bundle.sig``, beside the manifest.

Ed25519 (RFC 8032) over :data:`PREFIX` and the exact bytes of ``bundle.json``, which holds the SHA-256 of every other
file. The prefix keeps a signature from standing for anything else that the same key may sign.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgehem import strict_json
from edgehem.durable import read_once
from edgehem.errors import BundleError
from edgehem.keys import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEMA = "edgehem.signature/1"
SIGNATURE = "bundle.sig"
ALGORITHM = "ed25519"
PREFIX = b"edgehem.signature/1 bundle.json\0"
MAX_SIGNATURE_BYTES = 4096


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``bundle.sig`` holds.

    Parameters
    ----------
    schema : str
    algorithm : str
        ``ed25519``.
    key : str
        The key's id: see :func:`edgehem.keys.key_id`. It chooses among trusted keys and proves nothing.
    manifest : str
        SHA-256 of the signed manifest, so that a signature of an earlier one is told from a forged one.
    signature : bytes
        64 of them; Base64 in the file.
    """

    schema: str
    algorithm: str
    key: str
    manifest: str
    signature: bytes

    def encode(self) -> bytes:
        """The one spelling of the file: a file that differs in a blank or a line break is refused as well."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def covers(self, manifest: bytes) -> bool:
        """Whether it says that it was made for these bytes. Only :meth:`check` proves it."""
        return self.manifest == hashlib.sha256(manifest).hexdigest()

    def check(self, manifest: bytes, key: Ed25519PublicKey) -> None:
        """Make sure that a key signed a manifest.

        Parameters
        ----------
        manifest : bytes
            Exactly as read from the disk.
        key : Ed25519PublicKey

        Raises
        ------
        BundleError
        """
        from cryptography.exceptions import InvalidSignature

        if self.key != key_id(key):
            raise BundleError(f"the bundle was signed by another key ({self.key}), not by {key_id(key)}")
        if not self.covers(manifest):
            raise BundleError("the bundle's manifest changed after it was signed, or the signature is another bundle's")
        try:
            key.verify(self.signature, PREFIX + manifest)
        except InvalidSignature:
            raise BundleError("the bundle's signature is not genuine: the manifest or the signature changed") from None


def sign_manifest(manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """Sign a manifest's bytes."""
    return Signature(
        schema=SCHEMA,
        algorithm=ALGORITHM,
        key=key_id(key.public_key()),
        manifest=hashlib.sha256(manifest).hexdigest(),
        signature=key.sign(PREFIX + manifest),
    )


def read_signature(folder: Path) -> Signature | None:
    """A bundle's signature; None where it has none.

    Raises
    ------
    BundleError
        If there is one that cannot be read, or is not spelled as :meth:`Signature.encode` spells it.
    """
    try:
        raw, _ = read_once(folder / SIGNATURE, MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{SIGNATURE} of {folder.name} cannot be read: {error.strerror}") from error
    try:
        found = strict_json.decode(raw, Signature)
    except ValueError as error:
        raise BundleError(f"{SIGNATURE} of {folder.name} does not follow {SCHEMA}: {error}") from error
    if found.schema != SCHEMA or found.algorithm != ALGORITHM or found.encode() != raw:
        raise BundleError(f"{SIGNATURE} of {folder.name} does not follow {SCHEMA} with {ALGORITHM} to the letter")
    return found
