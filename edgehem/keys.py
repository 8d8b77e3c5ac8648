"""Ed25519 keys in PEM files: the private one signs bundles and stays where they are made; devices get the public one.

``openssl genpkey -algorithm ed25519`` and ``openssl pkey -pubout`` write the same files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgehem.durable import read_once, write_new
from edgehem.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "EDGEHEM_KEY_PASSPHRASE"
"""The variable with a private key's passphrase. Never an argument: every user of a machine sees those."""
MAX_KEY_BYTES = 16 * 1024
_OTHERS = 0o077


def require_cryptography() -> None:
    """Raise MissingExtraError where the [sign] extra is not installed."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519
        import cryptography.hazmat.primitives.serialization  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("signing bundles and checking their signatures", "sign") from error


def key_id(key: Ed25519PublicKey) -> str:
    """A public key's fingerprint: SHA-256 of its SubjectPublicKeyInfo in DER, 64 hexadecimal digits.

    ``openssl pkey -pubin -in key.pub -outform DER | sha256sum`` gives the same.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def make_keys(private: Path, public: Path | None = None) -> str:
    """Make a key pair; neither file may be there already.

    Parameters
    ----------
    private : Path
        For the private key: PKCS#8, PEM, mode 0600, encrypted where ``EDGEHEM_KEY_PASSPHRASE`` is set.
    public : Path, optional
        For the public key; the private one's path with ``.pub`` after it by default.

    Returns
    -------
    str
        What to tell the person who asked.

    Raises
    ------
    UsageError
        If one of the files is there, or cannot be written.
    MissingExtraError
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = public or private.with_name(private.name + ".pub")
    for path in (private, public):
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already, and a key is never overwritten: choose another name")
    key = Ed25519PrivateKey.generate()
    passphrase = _passphrase()
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        protection = serialization.BestAvailableEncryption(passphrase)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    try:
        write_new(private, secret, mode=0o600)
    except OSError as error:
        raise UsageError(f"the private key cannot be written to {private}: {error.strerror}") from error
    try:
        write_new(public, public_pem(key.public_key()), mode=0o644)
    except OSError as error:
        private.unlink()
        raise UsageError(f"the public key cannot be written to {public}: {error.strerror}") from error
    how = "encrypted with a passphrase" if passphrase is not None else f"not encrypted: set {PASSPHRASE} for that"
    return (
        f"private key: {private} ({how}; keep it off the devices)\n"
        f"public key:  {public} (goes into every device's trust store)\n"
        f"key id:      {key_id(key.public_key())}"
    )


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as a PEM file's bytes."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file that nobody else can read.

    Raises
    ------
    UsageError
        If it cannot be read, others can read it, its passphrase is missing or wrong, or it is no Ed25519 key.
    MissingExtraError
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        # A person may keep the key behind a link; what counts is the file it leads to.
        pem, found = read_once(path.resolve(), MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"the private key {path} cannot be read: {error.strerror}") from error
    if os.name == "posix" and found.st_mode & _OTHERS:
        raise UsageError(
            f"other users may read the private key {path} (mode {found.st_mode & 0o777:04o}): "
            "run chmod 600 on it, and replace the key if somebody else may have read it"
        )
    passphrase = _passphrase()
    encrypted = b"BEGIN ENCRYPTED" in pem
    if encrypted and passphrase is None:
        raise UsageError(f"the private key {path} is encrypted: put its passphrase into {PASSPHRASE}")
    try:
        key = load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wrong = f"the passphrase in {PASSPHRASE} does not open it, or it" if encrypted else "it"
        raise UsageError(f"{path} cannot be used to sign: {wrong} is no private key in PEM (PKCS#8)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is a private key of another kind; bundles are signed with Ed25519")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key of a PEM file.

    Raises
    ------
    UsageError
        If it cannot be read, or is no Ed25519 public key.
    MissingExtraError
    """
    try:
        pem, _ = read_once(path.resolve(), MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"the public key {path} cannot be read: {error.strerror}") from error
    return parse_public_key(pem, str(path))


def parse_public_key(pem: bytes, where: str) -> Ed25519PublicKey:
    """The public key in a PEM file's bytes; `where` names it in messages.

    Raises
    ------
    UsageError
        If it is no Ed25519 public key.
    MissingExtraError
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in pem:
        raise UsageError(f"{where} is a private key, which must not leave the place where bundles are signed")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{where} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{where} is a public key of another kind; bundles are signed with Ed25519")
    return key


def _passphrase() -> bytes | None:
    value = os.environ.get(PASSPHRASE)
    if value == "":
        raise UsageError(f"{PASSPHRASE} is set and empty: unset it, or put the passphrase into it")
    return None if value is None else value.encode()
