"""A bundle is used only if its manifest follows the schema and its files are the ones the manifest names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgehem import bundle as bundles
from edgehem.bundle import MANIFEST, SCHEMA, Bundle, find
from edgehem.errors import BundleError

Manifest = dict[str, Any]
WriteBundle = Callable[..., Path]


@pytest.fixture
def edit(write_bundle: WriteBundle) -> Callable[[Callable[[Manifest], object]], Path]:
    """A good bundle whose manifest was changed afterwards."""

    def change(how: Callable[[Manifest], object]) -> Path:
        folder = write_bundle()
        manifest = json.loads((folder / MANIFEST).read_bytes())
        how(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return change


def test_a_good_bundle_opens_and_verifies(write_bundle: WriteBundle) -> None:
    folder = write_bundle(graph=b"a graph", files={"MODEL_CARD.md": b"# Card\n"})
    bundle = Bundle(folder)
    bundle.verify()
    assert bundle.read(bundle.graph("fp32")) == b"a graph"
    assert bundle.sha256 == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda m: m.pop("version"), "version"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.update(demonstration="yes"), "demonstration"),
        (lambda m: m["heads"][0].update(rules=[{"label": 5}]), "label"),
        (lambda m: m["preprocess"].update(shape=[1, 2]), "shape"),
        (lambda m: m.update(schema="edgehem.bundle/9"), "edgehem.bundle/9"),
        (lambda m: m.update(graphs=[]), "no graph"),
        (lambda m: m.update(heads=[]), "no head"),
        (lambda m: m["inputs"].pop("valid"), "valid"),
        (lambda m: m["preprocess"].update(dtype="float64"), "float64"),
        (lambda m: m["preprocess"].update(windows=[]), "windows"),
        (lambda m: m["preprocess"].update(spacing_mm=[4.5, 0.0, 1.0]), "positive"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused_when_it_is_opened(
    how: Callable[[Manifest], object], message: str, edit: Callable[[Callable[[Manifest], object]], Path]
) -> None:
    """Not when the first study arrives; the message names what is wrong."""
    with pytest.raises(BundleError, match=message):
        Bundle(edit(how))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=SCHEMA):
        Bundle(tmp_path)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle(tmp_path)


def test_a_graph_that_was_tampered_with_is_refused(write_bundle: WriteBundle) -> None:
    """One byte is enough, and the length may stay the same."""
    folder = write_bundle(graph=b"a graph")
    (folder / "model.onnx").write_bytes(b"a gruph")
    bundle = Bundle(folder)
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read(bundle.graph("fp32"))
    with pytest.raises(BundleError, match=r"model\.onnx"):
        bundle.verify()


def test_verification_covers_every_file(write_bundle: WriteBundle) -> None:
    folder = write_bundle(files={"records/export.json": b"{}"})
    Bundle(folder).verify()
    (folder / "records/export.json").write_bytes(b"{ }")
    with pytest.raises(BundleError, match=r"export\.json"):
        Bundle(folder).verify()
    (folder / "records/export.json").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle(folder).verify()


@pytest.mark.parametrize("escape", ["../secret", "sub/../../secret", "link/secret", "ABSOLUTE"])
def test_no_file_outside_the_bundle_is_read(
    escape: str, write_bundle: WriteBundle, edit: Callable[[Callable[[Manifest], object]], Path], tmp_path: Path
) -> None:
    """Relative, absolute or through a link, even where the hash would fit."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for place in (tmp_path / "secret", outside / "secret"):
        place.write_bytes(b"secret")
    name = str(tmp_path / "secret") if escape == "ABSOLUTE" else escape
    digest = hashlib.sha256(b"secret").hexdigest()
    folder = edit(lambda m: m["graphs"][0].update(file=name, sha256=digest))
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(outside)
    bundle = Bundle(folder)
    with pytest.raises(BundleError, match="outside"):
        bundle.read(bundle.graph("fp32"))


def test_an_unknown_precision_is_refused_with_those_there_are(write_bundle: WriteBundle) -> None:
    with pytest.raises(BundleError, match="no int4 graph; it has fp32"):
        Bundle(write_bundle()).graph("int4")


def test_a_bundle_is_found_by_its_folder(write_bundle: WriteBundle) -> None:
    folder = write_bundle()
    assert find(folder).manifest == find(str(folder)).manifest == Bundle(folder).manifest


def test_a_bundle_that_is_not_there_is_answered_with_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "shipped", lambda: ["one", "other"])
    with pytest.raises(BundleError, match="one, other"):
        find("nosuchbundle")


def test_every_shipped_bundle_is_whole() -> None:
    """All files of the wheel's bundles are the ones their manifests name, and say that they are demonstrations."""
    names = bundles.shipped()
    assert "hemorrhagenet" in names
    for name in names:
        bundle = find(name)
        bundle.verify()
        assert bundle.manifest.demonstration


def test_the_shipped_bundle_is_as_good_on_held_out_phantoms_as_promised() -> None:
    """By its own record: 200 studies, half of them bleeding; INT8 separates them and decides as FP32 does."""
    held_out = find("hemorrhagenet").manifest.metrics["held_out"]
    assert held_out["studies"] == 200 and held_out["bleeding"] == pytest.approx(100, abs=5)
    int8 = held_out["precisions"]["int8"]
    assert int8["auc"]["any"][0] >= 0.97
    assert int8["against_fp32"]["flip_rate"] <= 0.01


def test_a_folder_in_the_working_directory_does_not_stand_in_for_a_shipped_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name means what edgehem ships; another folder of that name has to be given as a path."""
    genuine = find("hemorrhagenet")
    other = tmp_path / "hemorrhagenet"
    other.mkdir()
    (other / "bundle.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert find("hemorrhagenet").sha256 == genuine.sha256
    with pytest.raises(BundleError, match="does not follow"):
        find("./hemorrhagenet")
