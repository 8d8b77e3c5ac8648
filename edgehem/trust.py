"""Whom a device believes: the public keys that may sign its bundles, and how new a bundle has to be.

A trust store is a folder: public keys (``*.pem`` or ``*.pub``), and ``serials.json`` with the highest serial that was
accepted of every bundle name. Where the folder cannot be written to (a sealed image), ``EDGEHEM_TRUST_STATE`` names
another one for ``serials.json``. Serials are compared, never dates: a device's clock may be wrong, or be set.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgehem import strict_json
from edgehem.durable import read_once, write_whole
from edgehem.errors import BundleError, UsageError
from edgehem.keys import MAX_KEY_BYTES, key_id, parse_public_key
from edgehem.signature import Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FOLDER_VARIABLE = "EDGEHEM_TRUST"
STATE_VARIABLE = "EDGEHEM_TRUST_STATE"
SCHEMA = "edgehem.serials/1"
SERIALS, LOCK = "serials.json", ".serials.lock"
KEY_SUFFIXES = frozenset({".pem", ".pub"})
MAX_KEYS = 64
MAX_SERIALS_BYTES = 1024 * 1024
LOCK_S = 10.0
"""Seconds that another process may hold the lock; it needs milliseconds."""


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest bundle of one name that was accepted: its serial, and its manifest's SHA-256."""

    serial: int
    sha256: str


class Serials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``serials.json`` holds.

    ``sha256`` is that of the marks. It tells a damaged file; whoever may write to the folder can make a new one.
    """

    schema: str
    accepted: dict[str, Mark]
    sha256: str


class TrustStore:
    """A folder with public keys and the serials that were accepted.

    Parameters
    ----------
    folder : Path
    state : Path, optional
        Where ``serials.json`` lies; `folder` by default.

    Attributes
    ----------
    keys : mapping of str to Ed25519PublicKey
        By their ids.

    Raises
    ------
    UsageError
        If a folder is missing or every user may write to it, or there is no key, or one that is none.
    MissingExtraError
        If the [sign] extra is not installed.
    """

    def __init__(self, folder: Path, *, state: Path | None = None) -> None:
        self.folder, self.state = folder, state or folder
        for place in {self.folder, self.state}:
            _check_folder(place)
        files = sorted(path for path in folder.iterdir() if path.suffix in KEY_SUFFIXES and path.name[0] != ".")
        if not files:
            raise UsageError(f"the trust store {folder} holds no public key (*.pem, *.pub)")
        if len(files) > MAX_KEYS:
            raise UsageError(f"the trust store {folder} holds {len(files)} keys; at most {MAX_KEYS} are expected")
        self.keys: Mapping[str, Ed25519PublicKey] = dict(map(_read_key, files))

    @classmethod
    def configured(cls, folder: str | Path | None = None) -> TrustStore | None:
        """The store of a folder, else of ``EDGEHEM_TRUST``; None where neither is given.

        Raises
        ------
        UsageError
            As the class; and if a variable is set and empty, which a mistake in a script makes of it.
        MissingExtraError
        """
        named = _variable(FOLDER_VARIABLE) if folder is None else folder
        if named is None:
            return None
        state = _variable(STATE_VARIABLE)
        return cls(Path(named), state=None if state is None else Path(state))

    def check_signature(self, manifest: bytes, signature: Signature | None) -> str:
        """The id of the trusted key that signed a manifest.

        Raises
        ------
        BundleError
            If there is no signature, it is by another key, or it is not genuine.
        """
        if signature is None:
            raise BundleError("the bundle is not signed, and this device has a trust store: only signed ones are used")
        key = self.keys.get(signature.key)
        if key is None:
            raise BundleError(
                f"the bundle was signed by a key that this device does not trust ({signature.key}); "
                f"trusted: {', '.join(self.keys)}"
            )
        signature.check(manifest, key)
        return signature.key

    def check_serial(self, name: str, mark: Mark) -> None:
        """Make sure that a bundle is not older than one of its name that was accepted.

        Raises
        ------
        BundleError
            If it is older, is another one of the same serial, or ``serials.json`` cannot be believed.
        """
        self._compare(name, mark, self._read().get(name))

    def accept(self, name: str, mark: Mark) -> None:
        """Note that a bundle was accepted: older ones of its name are refused from now on.

        Processes may do so at the same time. Nothing is written where nothing changes.

        Raises
        ------
        BundleError
            As :meth:`check_serial`; and if the note cannot be written, since a bundle that leaves no trace could be
            replaced by an older one.
        """
        if self._read().get(name) == mark:
            return
        try:
            with self._locked():
                marks = self._read()
                self._compare(name, mark, marks.get(name))
                if marks.get(name) != mark:
                    write_whole(self.state / SERIALS, _encode({**marks, name: mark}))
        except OSError as error:
            raise BundleError(
                f"bundle {name} was not accepted: {self.state / SERIALS} cannot be written ({error.strerror}), and "
                f"without it an older bundle could take its place; {STATE_VARIABLE} names another folder for it"
            ) from error

    def _compare(self, name: str, mark: Mark, accepted: Mark | None) -> None:
        if accepted is None or mark.serial > accepted.serial or mark == accepted:
            return
        if mark.serial == accepted.serial:
            raise BundleError(
                f"bundle {name} has serial {mark.serial}, and so has another one that this device accepted "
                f"(SHA-256 {accepted.sha256[:16]}…): sign it again with a higher serial"
            )
        raise BundleError(
            f"bundle {name} has serial {mark.serial} and is older than the one this device accepted "
            f"({accepted.serial}): sign it again with a higher serial, or allow an older one on purpose"
        )

    def _read(self) -> dict[str, Mark]:
        """All marks; none where nothing was accepted yet."""
        path = self.state / SERIALS
        try:
            raw, _ = read_once(path, MAX_SERIALS_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        try:
            found = strict_json.decode(raw, Serials)
            if raw != _encode(found.accepted):
                raise ValueError("its contents do not fit their SHA-256")
        except ValueError as error:
            raise BundleError(
                f"{path} is damaged ({error}), so nothing says how new a bundle must be: restore it; or remove it, "
                "once it is certain that the bundles on this device are the ones it should run"
            ) from error
        return found.accepted

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes and threads from writing; the kernel lets go of the lock of one that dies."""
        try:
            import fcntl
        except ImportError:  # pragma: no cover - POSIX only
            raise OSError(0, "this system has no file locks that edgehem knows") from None
        handle = os.open(self.state / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            last = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > last:
                        raise OSError(0, f"another process has held its lock for {LOCK_S:.0f} s") from None
                    time.sleep(0.01)
            try:
                yield
            finally:
                # Closing is not enough: a process that was forked meanwhile has the lock open too.
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)


def _encode(marks: Mapping[str, Mark]) -> bytes:
    """The one spelling of ``serials.json``."""
    accepted = dict(sorted(marks.items()))
    digest = hashlib.sha256(msgspec.json.encode(accepted)).hexdigest()
    content = Serials(schema=SCHEMA, accepted=accepted, sha256=digest)
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _check_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise UsageError(f"the trust store {folder} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise UsageError(f"the trust store {folder} is not a folder")
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise UsageError(f"every user may write to the trust store {folder}: run chmod o-w on it, and check its keys")


def _read_key(path: Path) -> tuple[str, Ed25519PublicKey]:
    try:
        # Configuration systems mount files through links; the folder's owner decides what they lead to.
        pem, found = read_once(path.resolve(), MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"the trusted key {path} cannot be read: {error.strerror}") from error
    if os.name == "posix" and found.st_mode & stat.S_IWOTH:
        raise UsageError(f"every user may write to the trusted key {path}: run chmod o-w on it, and check it")
    key = parse_public_key(pem, f"the trusted key {path}")
    return key_id(key), key


def _variable(name: str) -> str | None:
    value = os.environ.get(name)
    if value == "":
        raise UsageError(f"{name} is set and empty: unset it, or name a folder")
    return value
