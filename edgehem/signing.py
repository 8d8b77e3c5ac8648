"""Signing a bundle and verifying one: what ``edgehem sign`` and ``edgehem verify`` do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgehem.bundle import MANIFEST, Bundle, locate
from edgehem.durable import write_whole
from edgehem.errors import BundleError, UsageError
from edgehem.keys import read_private_key, read_public_key
from edgehem.signature import SIGNATURE, read_signature, sign_manifest
from edgehem.strict_json import MAX_INTEGER
from edgehem.trust import TrustStore

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a bundle.

    Parameters
    ----------
    name, version : str
    serial : int
    sha256 : str
        Of the manifest.
    files : int
        How many files were read and are what the manifest says.
    signed_by : str or None
        Id of the key whose signature was verified.
    signature : str
        What is known of the signature, in words.
    """

    name: str
    version: str
    serial: int
    sha256: str
    files: int
    signed_by: str | None
    signature: str

    def text(self) -> str:
        """Lines for a person."""
        return (
            f"bundle:    {self.name} {self.version}, serial {self.serial}\n"
            f"manifest:  SHA-256 {self.sha256}\n"
            f"files:     {self.files}, all as the manifest says, and none besides\n"
            f"signature: {self.signature}"
        )


def sign_bundle(folder: Path, private: Path, *, serial: int | None = None) -> str:
    """Verify a bundle's files, give it its serial, and sign its manifest.

    Parameters
    ----------
    folder : Path
    private : Path
        The private key's file.
    serial : int, optional
        1 or more, and above those of the bundles that devices accepted under this name. By default a bundle that
        changed since it was signed, or never was, gets the next one after its own; another keeps it, so that it can be
        signed with a new key.

    Returns
    -------
    str
        What to tell the person who asked.

    Raises
    ------
    UsageError
        If the key or the serial cannot be used, or the bundle cannot be written.
    BundleError
        If the bundle is not whole; nothing was written then.
    MissingExtraError
    """
    if serial is not None and not 1 <= serial <= MAX_INTEGER:
        raise UsageError(f"the serial {serial} cannot be used: a whole number from 1 to 2**53 is expected")
    key = read_private_key(private)
    bundle = Bundle(folder)
    bundle.verify()
    old = bundle.manifest.serial
    if serial is None:
        serial = old if old and _unchanged(bundle) else old + 1
    raw = bundle.raw
    if serial != old:
        numbered = msgspec.structs.replace(bundle.manifest, serial=serial)
        raw = msgspec.json.format(msgspec.json.encode(numbered), indent=1) + b"\n"
    signature = sign_manifest(raw, key)
    try:
        # In this order: a process that is killed between them leaves a signature that fits no manifest, never one that
        # fits a manifest which was not signed.
        if serial != old:
            write_whole(folder / MANIFEST, raw)
        write_whole(folder / SIGNATURE, signature.encode())
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}") from error
    _check_signature(Bundle(folder), key.public_key())
    return f"{bundle.manifest.name} {bundle.manifest.version}: serial {serial}, signed by key {signature.key}"


def verify_bundle(
    name: str | Path,
    key: Path | None = None,
    *,
    trust: str | Path | None = None,
    allow_older: bool = False,
    accept: bool = False,
) -> Verification:
    """Read every file of a bundle, and check the signature with one key, or as this device's trust policy has it.

    Parameters
    ----------
    name : str or Path
        A shipped bundle's name, or a folder.
    key : Path, optional
        The public key that must have signed it. The trust store is not asked then.
    trust : str or Path, optional
        A trust store's folder; ``EDGEHEM_TRUST`` by default.
    allow_older : bool
        Do not mind that the trust store accepted a newer one.
    accept : bool
        Have the trust store refuse older ones from now on, as if the bundle had been loaded: for device images.

    Raises
    ------
    BundleError
        If a file is missing, differs or is not in the manifest; the bundle is unsigned where a signature is asked for,
        or signed by another key; or it is older than one that was accepted.
    UsageError
        If a key or the trust store cannot be used, or `accept` is asked for without a trust store.
    MissingExtraError
        If there is a signature to check, and the [sign] extra is not installed.
    """
    store = TrustStore.configured(trust) if key is None else None
    if accept and store is None:
        raise UsageError("there is no trust store that could accept the bundle: set EDGEHEM_TRUST, and give no key")
    bundle = Bundle(locate(name), trust=store, allow_older=allow_older)
    signed_by = bundle.signed_by
    if key is not None:
        signed_by = _check_signature(bundle, read_public_key(key))
    found = read_signature(bundle.folder)
    if found is not None and not found.covers(bundle.raw):
        raise BundleError(f"{SIGNATURE} of {bundle.manifest.name} is of another manifest: sign the bundle again")
    bundle.verify()
    if accept:
        bundle.accept()
    if signed_by is not None:
        words = f"genuine, by {'the given' if store is None else 'a trusted'} key {signed_by}"
    elif found is not None:
        words = f"not checked (it names the key {found.key}): give that public key, or a trust store"
    else:
        words = "none: nothing says who made this bundle"
    manifest = bundle.manifest
    return Verification(
        name=manifest.name,
        version=manifest.version,
        serial=manifest.serial,
        sha256=bundle.sha256,
        files=len(manifest.graphs) + len(manifest.files),
        signed_by=signed_by,
        signature=words,
    )


def _check_signature(bundle: Bundle, key: Ed25519PublicKey) -> str:
    signature = read_signature(bundle.folder)
    if signature is None:
        raise BundleError(f"bundle {bundle.manifest.name} is not signed")
    signature.check(bundle.raw, key)
    return signature.key


def _unchanged(bundle: Bundle) -> bool:
    """Whether the manifest is the one that was signed last, by whomever."""
    try:
        signature = read_signature(bundle.folder)
    except BundleError:
        return False
    return signature is not None and signature.covers(bundle.raw)
