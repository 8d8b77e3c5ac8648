"""A device's policy: trusted keys only, and never back to an older bundle unless somebody asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="needs the [sign] extra")

from edgehem import durable, keys, trust
from edgehem.bundle import Bundle, find
from edgehem.errors import BundleError, UsageError
from edgehem.signing import sign_bundle, verify_bundle
from edgehem.trust import FOLDER_VARIABLE, SERIALS, STATE_VARIABLE, Mark, TrustStore

MakeBundle = Callable[..., Path]


def mark(serial: int, which: str = "a") -> Mark:
    return Mark(serial=serial, sha256=which * 64)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vault")
    for name in ("ours", "theirs"):
        keys.make_keys(folder / name)
    return folder


@pytest.fixture
def store(vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trust store with our key, which the environment names."""
    folder = tmp_path / "trust"
    folder.mkdir(mode=0o755)
    shutil.copy(vault / "ours.pub", folder / "ours.pub")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    monkeypatch.delenv(STATE_VARIABLE, raising=False)
    return folder


@pytest.fixture
def make(write_bundle: Callable[..., Path], vault: Path, tmp_path: Path) -> MakeBundle:
    """The maker of signed bundles of one name."""

    def write(serial: int, *, graph: str = "graph", name: str = "tiny") -> Path:
        folder = write_bundle(graph=graph, name=name).rename(tmp_path / f"{name}-{serial}-{graph}")
        sign_bundle(folder, vault / "ours", serial=serial)
        return folder

    return write


def load(folder: Path, *, allow_older: bool = False) -> Bundle:
    """As a model is loaded."""
    bundle = find(folder, allow_older=allow_older)
    bundle.read(bundle.graph("fp32"))
    bundle.accept()
    return bundle


# Older bundles


def test_an_older_bundle_is_refused_once_a_newer_one_was_accepted(store: Path, make: MakeBundle) -> None:
    first, second = make(1), make(2)
    for folder in (first, first, second, second):
        load(folder)
    for check in (lambda: load(first), lambda: find(first), lambda: verify_bundle(first)):
        with pytest.raises(BundleError, match=r"serial 1 and is older .* \(2\)"):
            check()
    load(make(1, name="other"))  # each name has its own


def test_going_back_on_purpose_is_for_once(store: Path, make: MakeBundle) -> None:
    """The mark stays where it was: what was allowed once is not allowed for ever."""
    first, second = make(1), make(2)
    load(second)
    before = (store / SERIALS).read_bytes()
    assert load(first, allow_older=True).signed_by
    assert verify_bundle(first, allow_older=True).serial == 1
    assert (store / SERIALS).read_bytes() == before
    with pytest.raises(BundleError, match="older"):
        load(first)


def test_two_bundles_of_one_serial_do_not_replace_each_other(store: Path, make: MakeBundle) -> None:
    load(make(1))
    with pytest.raises(BundleError, match="so has another one"):
        load(make(1, graph="other"))


def test_a_damaged_copy_of_a_newer_bundle_does_not_bar_the_way_back(store: Path, make: MakeBundle) -> None:
    first, second = make(1), make(2)
    load(first)
    (second / "model.onnx").write_bytes(b"gr")
    with pytest.raises(BundleError):
        load(second)
    load(first)


def test_verification_accepts_only_when_told_to(store: Path, make: MakeBundle, vault: Path) -> None:
    """For device images: accepted before the store is sealed."""
    folder = make(5)
    verify_bundle(folder)
    assert not (store / SERIALS).exists()
    verify_bundle(folder, accept=True)
    with pytest.raises(BundleError, match="older"):
        find(make(4))
    with pytest.raises(UsageError, match="no trust store"):
        verify_bundle(folder, vault / "ours.pub", accept=True)


# Keys and configuration


def test_without_a_store_everything_loads_and_nothing_is_noted(
    store: Path, make: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, first = make(2), make(1)
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert load(second).signed_by is load(first).signed_by is None
    assert not (store / SERIALS).exists()


def test_keys_are_exchanged_by_having_both_for_a_while(store: Path, make: MakeBundle, vault: Path) -> None:
    folder = make(1)
    load(folder)
    shutil.copy(vault / "theirs.pub", store / "next.pem")
    sign_bundle(folder, vault / "theirs")
    assert load(folder).signed_by == keys.key_id(keys.read_public_key(vault / "theirs.pub"))
    (store / "next.pem").unlink()
    with pytest.raises(BundleError, match="does not trust"):
        load(folder)


def test_a_store_that_cannot_be_relied_on_is_refused(
    store: Path, make: MakeBundle, vault: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not passed over: a mistake in a script must not switch the policy off."""
    folder = make(1)

    def refused(message: str) -> None:
        with pytest.raises(UsageError, match=message):
            find(folder)

    store.chmod(0o777)
    refused("chmod o-w")
    store.chmod(0o755)
    (store / "ours.pub").chmod(0o646)
    refused("chmod o-w")
    (store / "ours.pub").chmod(0o644)
    for content, message in ((b"", "no public key"), ((vault / "theirs").read_bytes(), "is a private key")):
        (store / "more.pem").write_bytes(content)
        refused(message)
    (store / "more.pem").unlink()
    (store / "ours.pub").unlink()
    refused("holds no public key")
    for value, message in (("", "set and empty"), (str(tmp_path / "none"), "cannot be read")):
        monkeypatch.setenv(FOLDER_VARIABLE, value)
        refused(message)
    shutil.copy(vault / "ours.pub", tmp_path / "ours.pub")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "ours.pub"))
    refused("not a folder")


# The note of what was accepted


def test_a_damaged_note_is_refused_and_never_ignored(store: Path, make: MakeBundle) -> None:
    """Every bit of it: a serial with one bit less would let an older bundle in."""
    folder = make(6)
    load(folder)
    good = (store / SERIALS).read_bytes()
    trusted = TrustStore(store)
    bad = [
        bytes(b ^ (1 << bit % 8) if at == bit // 8 else b for at, b in enumerate(good)) for bit in range(len(good) * 8)
    ]
    bad += [good[:cut] for cut in range(len(good))] + [good + b" ", good + good, b"{}", b"null", b"[" * 10_000]
    for content in bad:
        (store / SERIALS).write_bytes(content)
        with pytest.raises(BundleError, match="is damaged"):
            trusted.check_serial("tiny", mark(7))
        with pytest.raises(BundleError, match="is damaged"):
            trusted.accept("tiny", mark(7))
    (store / SERIALS).unlink()
    (store / SERIALS).symlink_to(store / "elsewhere")
    with pytest.raises(BundleError, match="cannot be read"):
        load(folder)


def test_where_nothing_can_be_noted_only_what_was_noted_before_loads(
    store: Path, make: MakeBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sealed image runs the bundle it was sealed with; for newer ones it needs a folder that can be written to."""
    first, second = make(1), make(2)
    load(first)

    def sealed(path: Path, data: bytes, *, mode: int = 0o666) -> None:
        if path.parent == store:
            raise OSError(30, "Read-only file system")
        plain(path, data, mode=mode)

    plain = durable.write_new
    monkeypatch.setattr(durable, "write_new", sealed)
    load(first)
    with pytest.raises(BundleError, match=r"Read-only.*EDGEHEM_TRUST_STATE"):
        load(second)
    load(second, allow_older=True)
    (tmp_path / "state").mkdir()
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    load(second)
    assert (tmp_path / "state" / SERIALS).exists()
    with pytest.raises(BundleError, match="older"):
        load(first)


def test_a_lock_that_is_never_let_go_ends_in_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "LOCK_S", 0.05)
    one, other = TrustStore(store), TrustStore(store)
    with one._locked(), pytest.raises(BundleError, match="has held its lock"):
        other.accept("tiny", mark(1))
    other.accept("tiny", mark(1))


def test_threads_that_load_at_once_leave_the_highest_serial(store: Path) -> None:
    """Of every name; whoever comes too late is refused, and nothing that was accepted is lost."""
    failures: list[str] = []
    start = threading.Barrier(8)

    def accept(first: int) -> None:
        trusted = TrustStore(store)
        start.wait()
        for serial in range(first, 41, 8):
            for name in ("one", "two"):
                try:
                    trusted.accept(name, mark(serial))
                except BundleError as error:
                    failures.append(str(error))

    threads = [threading.Thread(target=accept, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("older" in failure for failure in failures)
    trusted = TrustStore(store)
    assert trusted._read() == {"one": mark(40), "two": mark(40)}


PROCESSES = """
import os, sys
from pathlib import Path
from edgehem.errors import BundleError
from edgehem.trust import Mark, TrustStore

trusted = TrustStore(Path(sys.argv[1]))
children = []
for first in range(1, 5):
    child = os.fork()
    if not child:
        for serial in range(first, 61, 4):
            try:
                trusted.accept("tiny", Mark(serial=serial, sha256="a" * 64))
            except BundleError as error:
                if "older" not in str(error):
                    os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_processes_that_load_at_once_leave_the_highest_serial(store: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROCESSES, store], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert TrustStore(store)._read() == {"tiny": mark(60)}


KILLED = """
import os, shutil, signal, sys
from pathlib import Path

from edgehem.bundle import find
from edgehem.errors import BundleError
from edgehem.signing import sign_bundle
from edgehem.trust import TrustStore

old, unsigned, store, key, work = map(Path, sys.argv[1:])


def step(plain):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **kwargs)
    return call


def load(folder):
    bundle = find(folder, trust=store)
    bundle.accept()
    return bundle.manifest.serial


def serial(folder):
    try:
        return load(folder)
    except BundleError as error:
        assert "damaged" not in str(error), error
        return 0


last, status, seen = 0, None, set()
while status != 0:
    last, count = last + 1, 0
    place = shutil.copytree(unsigned, work / str(last))
    (store / "serials.json").unlink(missing_ok=True)
    assert load(old) == 2
    child = os.fork()
    if not child:
        for name in ("open", "replace", "fsync", "unlink", "close"):
            setattr(os, name, step(getattr(os, name)))
        sign_bundle(place, key, serial=3)
        load(place)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    loaded = serial(old), serial(place)
    seen.add(loaded)
    assert loaded in {(2, 0), (2, 3), (0, 3)}, loaded
    sign_bundle(place, key, serial=4)
    assert load(place) == 4 and serial(old) == 0
print(last, sorted(seen))
sys.exit(last < 20 or seen != {(2, 0), (2, 3), (0, 3)})
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_killed_at_any_step_of_signing_or_accepting_the_older_or_the_newer_bundle_loads(
    store: Path, make: MakeBundle, write_bundle: Callable[..., Path], vault: Path, tmp_path: Path
) -> None:
    """SIGKILL before every system call: a bundle is signed or not, accepted or not, and the next try succeeds."""
    old, unsigned = make(2), write_bundle(graph="new")
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", KILLED, old, unsigned, store, vault / "ours", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
