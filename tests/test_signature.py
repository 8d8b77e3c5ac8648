"""A signed bundle loads only as it was signed: every byte of it counts, and nothing of it can be exchanged."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("cryptography", reason="needs the [sign] extra")

from edgehem import keys
from edgehem.bundle import MANIFEST, Bundle, find, shipped
from edgehem.errors import BundleError, MissingExtraError, UsageError
from edgehem.export.bundling import write_manifest
from edgehem.signature import PREFIX, SIGNATURE, read_signature
from edgehem.signing import sign_bundle, verify_bundle
from edgehem.trust import FOLDER_VARIABLE, STATE_VARIABLE, TrustStore

WriteBundle = Callable[..., Path]
GRAPH = bytes.fromhex("32 8004") + bytes(range(256)) * 2 + bytes.fromhex("3a 00")
"""A model of an empty graph and a doc_string of every byte, twice."""
FILES = {"MODEL_CARD.md": b"# Card\n" * 20, "records/export.json": b'{"nodes": 1}', "records/empty.json": b""}


@pytest.fixture(autouse=True)
def _no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FOLDER_VARIABLE, STATE_VARIABLE, keys.PASSPHRASE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key pairs of ours and of somebody else."""
    folder = tmp_path_factory.mktemp("vault")
    for name in ("ours", "theirs"):
        keys.make_keys(folder / name)
    return folder


@pytest.fixture
def store(vault: Path, tmp_path: Path) -> Path:
    """A trust store with our key."""
    folder = tmp_path / "trust"
    folder.mkdir(mode=0o755)
    shutil.copy(vault / "ours.pub", folder / "ours.pub")
    return folder


@pytest.fixture
def signed(write_bundle: WriteBundle, vault: Path) -> Path:
    """A bundle that we signed: two graphs would add nothing, four other files do."""
    folder = write_bundle(graph=GRAPH, files=FILES)
    sign_bundle(folder, vault / "ours")
    return folder


def use(folder: Path, store: Path) -> Bundle:
    """Load and verify as a device does."""
    bundle = Bundle(folder, trust=TrustStore(store))
    bundle.read(bundle.graph("fp32"))
    bundle.verify()
    return bundle


def every_file(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# Signing and verifying


def test_a_signed_bundle_names_its_key(signed: Path, store: Path, vault: Path) -> None:
    identity = keys.key_id(keys.read_public_key(vault / "ours.pub"))
    assert use(signed, store).signed_by == find(signed, trust=store).signed_by == identity
    assert Bundle(signed).signed_by is None
    verified = verify_bundle(signed, vault / "ours.pub")
    assert verified.signed_by == identity == verify_bundle(signed, trust=store).signed_by
    assert verified.files == 4 and verified.serial == 1
    assert f"genuine, by the given key {identity}" in verified.text()
    unchecked = verify_bundle(signed)
    assert unchecked.signed_by is None and "not checked" in unchecked.text() and identity in unchecked.text()


def test_an_unsigned_bundle_loads_without_a_trust_store_and_says_so(write_bundle: WriteBundle) -> None:
    folder = write_bundle()
    assert find(folder).signed_by is None
    assert "none: nothing says who made this bundle" in verify_bundle(folder).text()


def test_openssl_agrees_with_the_signature_and_the_key_id(signed: Path, vault: Path, tmp_path: Path) -> None:
    """The format is what the documentation says, for whoever wants to check it with another program."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    found = read_signature(signed)
    assert found is not None
    (tmp_path / "signed").write_bytes(PREFIX + (signed / MANIFEST).read_bytes())
    (tmp_path / "sig").write_bytes(found.signature)
    how = ["-verify", "-pubin", "-inkey", vault / "ours.pub", "-rawin", "-in", "signed", "-sigfile", "sig"]
    done = subprocess.run(["openssl", "pkeyutl", *how], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", vault / "ours.pub", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(der).hexdigest() == found.key


def test_the_serial_grows_with_the_bundle_and_not_with_the_keys(signed: Path, vault: Path, store: Path) -> None:
    """An unchanged bundle keeps it, so that a new key can sign it; a changed one gets the next; a chosen one holds."""
    assert "serial 1" in sign_bundle(signed, vault / "theirs")
    assert "serial 1" in sign_bundle(signed, vault / "ours")
    write_manifest(signed, Bundle(signed).manifest)
    assert not (signed / SIGNATURE).exists(), "a signature of the old manifest must not stay"
    with pytest.raises(BundleError, match="not signed"):
        use(signed, store)
    assert "serial 2" in sign_bundle(signed, vault / "ours")
    assert "serial 40" in sign_bundle(signed, vault / "ours", serial=40)
    assert use(signed, store).manifest.serial == 40
    for serial in (0, -1, 2**53 + 1):
        with pytest.raises(UsageError, match="serial"):
            sign_bundle(signed, vault / "ours", serial=serial)


def test_a_broken_bundle_is_not_signed(signed: Path, vault: Path) -> None:
    before = (signed / SIGNATURE).read_bytes()
    (signed / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="SHA-256"):
        sign_bundle(signed, vault / "ours")
    assert (signed / SIGNATURE).read_bytes() == before


# Attacks


def test_500_flipped_bits_are_all_found(signed: Path, store: Path) -> None:
    """Anywhere in any file, one bit or eight: at load or at verification, and always as a BundleError."""
    rng = random.Random(20)
    places = [path for path in every_file(signed) if path.stat().st_size]
    assert len(places) == 5
    for _ in range(500):
        path = rng.choice(places)
        good = path.read_bytes()
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
        path.write_bytes(bad)
        with pytest.raises(BundleError):
            use(signed, store)
        path.write_bytes(good)
    use(signed, store)


def test_every_bit_of_the_signature_file_counts(signed: Path, store: Path) -> None:
    """Also those of Base64's last character and of blanks, which other readers pass over."""
    path = signed / SIGNATURE
    good = path.read_bytes()
    trust = TrustStore(store)
    for at in range(len(good) * 8):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        path.write_bytes(bad)
        with pytest.raises(BundleError):
            Bundle(signed, trust=trust)


def test_truncated_and_lengthened_files_are_found(signed: Path, store: Path) -> None:
    rng = random.Random(3)
    for path in every_file(signed):
        good = path.read_bytes()
        cuts = {0, max(len(good) - 1, 0), *(rng.randrange(len(good) or 1) for _ in range(20))} - {len(good)}
        tails = [b"\0", b" ", b"\n", b"}", good or b"x", rng.randbytes(100)]
        for bad in [*(good[:cut] for cut in cuts), *(good + tail for tail in tails)]:
            path.write_bytes(bad)
            with pytest.raises(BundleError):
                use(signed, store)
        path.write_bytes(good)
    use(signed, store)


def test_missing_and_exchanged_files_are_found(signed: Path, store: Path, tmp_path: Path) -> None:
    places = every_file(signed)
    for one in places:
        good = one.read_bytes()
        one.unlink()
        with pytest.raises(BundleError):
            use(signed, store)
        (tmp_path / "moved").write_bytes(good)
        one.symlink_to(tmp_path / "moved")
        with pytest.raises(BundleError):
            use(signed, store)
        one.unlink()
        for other in places:
            if other != one:
                one.write_bytes(other.read_bytes())
                with pytest.raises(BundleError):
                    use(signed, store)
        one.write_bytes(good)
    use(signed, store)


def test_the_signature_can_be_neither_left_out_nor_borrowed(
    signed: Path, store: Path, vault: Path, tmp_path: Path
) -> None:
    sign_bundle(shutil.copytree(signed, tmp_path / "theirs"), vault / "theirs")
    other = shutil.copytree(signed, tmp_path / "other")
    sign_bundle(other, vault / "ours", serial=9)
    with pytest.raises(BundleError, match="does not trust"):
        use(tmp_path / "theirs", store)
    with pytest.raises(BundleError, match="another key"):
        verify_bundle(tmp_path / "theirs", vault / "ours.pub")
    shutil.copy(signed / SIGNATURE, other / SIGNATURE)
    for check in (lambda: use(other, store), lambda: verify_bundle(other), lambda: verify_bundle(other, trust=store)):
        with pytest.raises(BundleError, match=r"another manifest|changed after"):
            check()
    # Their signature under our key's name: what the file says about itself proves nothing.
    honest, forged = read_signature(signed), read_signature(tmp_path / "theirs")
    assert honest is not None and forged is not None and honest.signature != forged.signature
    (signed / SIGNATURE).write_bytes(msgspec.structs.replace(forged, key=honest.key).encode())
    with pytest.raises(BundleError, match="not genuine"):
        use(signed, store)
    (signed / SIGNATURE).unlink()
    for check in (lambda: use(signed, store), lambda: find(signed, trust=store)):
        with pytest.raises(BundleError, match="is not signed"):
            check()
    with pytest.raises(BundleError, match="is not signed"):
        verify_bundle(signed, vault / "ours.pub")


@pytest.mark.parametrize("sort", [False, True])
def test_a_manifest_in_another_spelling_is_not_the_one_that_was_signed(signed: Path, store: Path, sort: bool) -> None:
    raw = (signed / MANIFEST).read_bytes()
    again = json.dumps(json.loads(raw), sort_keys=sort).encode()
    assert json.loads(again) == json.loads(raw)
    (signed / MANIFEST).write_bytes(again)
    with pytest.raises(BundleError, match="changed after"):
        use(signed, store)


def test_an_unsigned_manifest_never_reaches_the_parser(
    signed: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only signed bundles count, an attacker's JSON is not even read as JSON."""
    seen: list[bytes] = []
    monkeypatch.setattr("edgehem.bundle.strict_json.decode", lambda raw, kind: seen.append(raw))
    monkeypatch.setattr("edgehem.bundle.read_signature", lambda folder: None)
    (signed / MANIFEST).write_bytes(b"[" * 100)
    with pytest.raises(BundleError, match="not signed"):
        use(signed, store)
    assert not seen


def test_the_bytes_that_were_checked_are_the_bytes_that_are_used(
    signed: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is opened once; what somebody puts in its place afterwards is not looked at."""
    from edgehem import durable

    opened: list[str] = []
    plain = os.open

    def watch(path: str | os.PathLike[str], *how: int) -> int:
        handle = plain(path, *how)
        if Path(path).is_relative_to(signed):
            opened.append(Path(path).relative_to(signed).as_posix())
            Path(path).rename(Path(path).with_name(".was"))
            Path(path).write_bytes(b"exchanged")
        return handle

    monkeypatch.setattr(durable.os, "open", watch)
    bundle = Bundle(signed, trust=TrustStore(store))
    assert bundle.read(bundle.graph("fp32")) == GRAPH
    assert opened == [MANIFEST, SIGNATURE, "model.onnx"]


# Keys


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    said = keys.make_keys(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert keys.key_id(keys.read_public_key(tmp_path / "key.pub")) in said
    for taken in ("key", "other"):
        with pytest.raises(UsageError, match="never overwritten"):
            keys.make_keys(tmp_path / taken, tmp_path / "key.pub")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="never overwritten"):
        keys.make_keys(tmp_path / "dangling")
    with pytest.raises(UsageError, match="cannot be written"):
        keys.make_keys(tmp_path / "no folder" / "key")
    with pytest.raises(UsageError, match="cannot be written"):
        keys.make_keys(tmp_path / "half", tmp_path / "no folder" / "key.pub")
    assert not (tmp_path / "half").exists()
    assert (tmp_path / "key").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_private_key_that_others_can_read_is_refused_with_the_remedy(
    mode: int, write_bundle: WriteBundle, tmp_path: Path
) -> None:
    keys.make_keys(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        sign_bundle(write_bundle(), tmp_path / "key")


def test_a_passphrase_comes_from_the_environment_only(
    write_bundle: WriteBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(keys.PASSPHRASE, "correct horse")
    assert "encrypted with a passphrase" in keys.make_keys(tmp_path / "key")
    assert b"ENCRYPTED" in (tmp_path / "key").read_bytes()
    folder = write_bundle()
    sign_bundle(folder, tmp_path / "key")
    for value, message in (("wrong", "does not open it"), ("", "set and empty"), (None, "is encrypted")):
        if value is None:
            monkeypatch.delenv(keys.PASSPHRASE)
        else:
            monkeypatch.setenv(keys.PASSPHRASE, value)
        with pytest.raises(UsageError, match=message) as caught:
            sign_bundle(folder, tmp_path / "key")
        assert "horse" not in str(caught.value)


def test_what_is_no_ed25519_key_is_refused(write_bundle: WriteBundle, vault: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    other = generate_private_key(SECP256R1())
    private, public = tmp_path / "key", tmp_path / "key.pub"
    private.touch(mode=0o600)
    kinds = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    for pem in (b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 20_000,
                (vault / "ours.pub").read_bytes(), other.private_bytes(*kinds)):  # fmt: skip
        private.write_bytes(pem)
        with pytest.raises(UsageError, match=r"no private key|another kind|at most"):
            sign_bundle(write_bundle(), private)
    spki = other.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    for pem in (b"", b"nonsense", (vault / "ours").read_bytes(), spki):
        public.write_bytes(pem)
        with pytest.raises(UsageError, match=r"no public key|is a private key|another kind"):
            verify_bundle(write_bundle(), public)
    for missing in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="cannot be read"):
            verify_bundle(write_bundle(), missing)


def test_without_the_extra_a_signature_is_asked_for_in_vain(
    signed: Path, store: Path, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, not passed over; and what needs no signature works."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    for need in (
        lambda: find(signed, trust=store),
        lambda: verify_bundle(signed, vault / "ours.pub"),
        lambda: sign_bundle(signed, vault / "ours"),
        lambda: keys.make_keys(vault / "new"),
    ):
        with pytest.raises(MissingExtraError, match=r"edgehem\[sign\]"):
            need()
    assert find(signed).signed_by is None
    assert "not checked" in verify_bundle(signed).text()


# The bundle that ships


def test_the_shipped_manifest_can_be_signed_as_it_is(vault: Path, store: Path, tmp_path: Path) -> None:
    """Signing adds the serial and changes nothing else; unsigned, a device with a trust store refuses it."""
    for name in shipped():
        with pytest.raises(BundleError, match="not signed"):
            find(name, trust=store)
        genuine = find(name)
        copy = shutil.copytree(genuine.folder, tmp_path / name)
        sign_bundle(copy, vault / "ours")
        bundle = use(copy, store)
        assert msgspec.structs.replace(bundle.manifest, serial=0) == genuine.manifest
