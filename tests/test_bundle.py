"""A bundle is used only if its manifest follows the schema and its files are the ones the manifest names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
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
    folder = write_bundle(graph="a graph", files={"MODEL_CARD.md": b"# Card\n"})
    bundle = Bundle(folder)
    bundle.verify()
    assert b"a graph" in bundle.read(bundle.graph("fp32")) == (folder / "model.onnx").read_bytes()
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
        (lambda m: m["inputs"].update(sound="s"), "sound"),
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
    folder = write_bundle(graph="a graph")
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"a graph", b"a gruph"))
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


@pytest.mark.parametrize("escape", ["../secret", "sub/../../secret", "ABSOLUTE"])
def test_no_file_outside_the_bundle_is_named(
    escape: str, edit: Callable[[Callable[[Manifest], object]], Path], tmp_path: Path
) -> None:
    """Relative or absolute, even where the hash would fit."""
    (tmp_path / "secret").write_bytes(b"secret")
    name = str(tmp_path / "secret") if escape == "ABSOLUTE" else escape
    digest = hashlib.sha256(b"secret").hexdigest()
    with pytest.raises(BundleError, match="outside"):
        Bundle(edit(lambda m: m["graphs"][0].update(file=name, sha256=digest, bytes=6)))


@pytest.mark.parametrize("name", ["link/secret", "linked"])
def test_no_link_is_followed(name: str, edit: Callable[[Callable[[Manifest], object]], Path], tmp_path: Path) -> None:
    """Of a folder or of a file, wherever it leads and even where the hash fits."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    folder = edit(lambda m: m["graphs"][0].update(file=name, sha256=digest, bytes=6))
    (folder / "link").symlink_to(outside)
    (folder / "linked").symlink_to(outside / "secret")
    bundle = Bundle(folder)
    with pytest.raises(BundleError, match="link"):
        bundle.read(bundle.graph("fp32"))


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(write_bundle: WriteBundle) -> None:
    folder = write_bundle()
    for name in ("model.onnx", MANIFEST):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(BundleError, match="plain file"):
            Bundle(folder).verify()
        if name == "model.onnx":
            Bundle(folder)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "/", "a//b", "a/", "/a", ".hidden", "a/.hidden", "a.", "a ", "a\\b", "C:x", "a\n", "a\0", "a*", "für",
        "bundle.json", "Bundle.JSON", "bundle.sig", "x" * 129,
    ],
)  # fmt: skip
def test_a_name_that_is_not_the_same_file_everywhere_is_refused(
    name: str, edit: Callable[[Callable[[Manifest], object]], Path]
) -> None:
    """Hidden, not portable, or the manifest's own."""
    with pytest.raises(BundleError, match=r"portable|already"):
        Bundle(edit(lambda m: m["files"].update({name: "0" * 64})))


@pytest.mark.parametrize("name", ["model.onnx", "MODEL.ONNX"])
def test_no_file_is_named_twice(name: str, edit: Callable[[Callable[[Manifest], object]], Path]) -> None:
    """Two hashes for one file would let its reader choose; file systems that ignore case count too."""
    with pytest.raises(BundleError, match="already"):
        Bundle(edit(lambda m: m["files"].update({name: "0" * 64})))
    with pytest.raises(BundleError, match="already"):
        Bundle(edit(lambda m: m["graphs"].append({**m["graphs"][0], "precision": "int8", "file": name})))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version":"1.2"', '"version":"1.2","version":"1.3"', "'version' twice"),
        ('"version":"1.2"', '"version":"1.2","v\\u0065rsion":"1.3"', "'version' twice"),
        ('"file":"model.onnx"', '"file":"model.onnx","file":"other.onnx"', "'file' twice"),
        ('"metrics":{}', '"metrics":' + "[" * 33 + "]" * 33, "deeper than 32"),
        ('"metrics":{}', '"metrics":' + '{"a":' * 100_000 + "1" + "}" * 100_000, "deeper than 32"),
        ('"metrics":{}', '"metrics":' + "[" * 1_000_000, "deeper than 32"),
        ('"metrics":{}', '"metrics":{"a":' + "9" * 1_000_000 + "}", "integer beyond"),
        ('"metrics":{}', '"metrics":{"a":9007199254740993}', "integer beyond"),
        ('"metrics":{}', '"metrics":{"a":1e999}', "not finite"),
        ('"metrics":{}', '"metrics":{"a":0.' + "1" * 100_000 + "}", "64 characters"),
        ('"metrics":{}', '"metrics":{"a":NaN}', "NaN"),
        ('"metrics":{}', '"metrics":{"a":-Infinity}', "Infinity"),
        ('"metrics":{}', '"metrics":{"a":"' + "x" * 4 * 2**20 + '"}', "at most"),
        ('"metrics":{}', '"\\u001b[2Jmetrics":{}', r"\?\[2J"),
        ('"shape":[12,16,16]', '"shape":[1000000,1000000,1000000]', "more than"),
        ('"bytes":9', '"bytes":9e400', "not finite"),
        ('"serial":0', '"serial":-1', "serial"),
        ('"serial":0', '"serial":true', "serial"),
        ('"name":"tiny"', '"name":"ti\\u001bny"', "printable"),
        ('"name":"tiny"', '"name":" "', "printable"),
        ("{", "\ufeff{", "does not follow"),
    ],
    ids=lambda text: text[:24],
)
def test_a_manifest_has_one_meaning_and_bounds(old: str, new: str, message: str, write_bundle: WriteBundle) -> None:
    """Readers of JSON differ on repeated keys and on numbers; nesting and sizes cost memory and time."""
    folder = write_bundle()
    raw = (folder / MANIFEST).read_text(encoding="utf-8")
    assert old in raw
    (folder / MANIFEST).write_text(raw.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BundleError, match=message) as caught:
        Bundle(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_graph_of_another_size_than_the_manifest_says_is_refused(
    edit: Callable[[Callable[[Manifest], object]], Path],
) -> None:
    bundle = Bundle(edit(lambda m: m["graphs"][0].update(bytes=7)))
    with pytest.raises(BundleError, match="size"):
        bundle.read(bundle.graph("fp32"))


def test_a_file_too_large_is_not_read(write_bundle: WriteBundle) -> None:
    """By its length: a sparse file costs its sender nothing."""
    folder = write_bundle(files={"card.md": b"x"})
    os.truncate(folder / "card.md", 2**40)
    with pytest.raises(BundleError, match="at most"):
        Bundle(folder).verify()


@pytest.mark.parametrize("extra", ["notes.md", "records/extra.json", "link"])
def test_a_file_that_the_manifest_does_not_name_fails_verification_and_not_loading(
    extra: str, write_bundle: WriteBundle, tmp_path: Path
) -> None:
    """Nothing would read it, but a person may take it for a part of the bundle."""
    folder = write_bundle(files={"records/one.json": b"{}"})
    if extra == "link":
        (folder / extra).symlink_to(tmp_path)
    else:
        (folder / extra).write_bytes(b"x")
    bundle = Bundle(folder)
    assert bundle.read(bundle.graph("fp32"))
    with pytest.raises(BundleError, match=f"'{extra}'.*not in its manifest"):
        bundle.verify()


def test_what_a_killed_process_or_a_file_manager_leaves_is_no_part_of_the_bundle(write_bundle: WriteBundle) -> None:
    folder = write_bundle()
    (folder / ".bundle.json.0123456789abcdef.part").write_bytes(b"{")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / ".cache/x").write_bytes(b"x")
    Bundle(folder).verify()


def test_an_unknown_precision_is_refused_with_those_there_are(write_bundle: WriteBundle) -> None:
    with pytest.raises(BundleError, match="no int4 graph; it has fp32"):
        Bundle(write_bundle()).graph("int4")


@pytest.fixture
def many(write_bundle: WriteBundle) -> Bundle:
    """One graph of every form."""
    forms = {
        "fp32": ("float",), "fp16": ("float16",), "int8": ("qdq-s8", "qdq-u8", "qdq-s8-f16"),
    }  # fmt: skip
    first = Bundle(write_bundle()).manifest.graphs[0]
    graphs = tuple(
        msgspec.structs.replace(first, precision=precision, form=form, file=f"{form}.onnx")
        for precision, some in forms.items()
        for form in some
    )
    return Bundle(write_bundle(graphs=graphs))


@pytest.mark.parametrize(
    ("forms", "precision", "expected"),
    [
        (("float", "qdq-u8", "qdq-s8"), "int8", "qdq-u8"),
        (("float", "qdq-s8", "qdq-u8"), "int8", "qdq-s8"),
        (("qdq-s8-f16", "qdq-s8", "float16", "float"), "int8", "qdq-s8-f16"),
        (("qdq-s8-f16", "qdq-s8", "float16", "float"), "fp16", "float16"),
        (("float",), "fp32", "float"),
        ((), "int8", "qdq-s8"),
        ((), "fp16", "float16"),
    ],
)
def test_an_engine_gets_the_form_that_suits_it_first(
    forms: tuple[str, ...], precision: str, expected: str, many: Bundle
) -> None:
    assert many.graph(precision, forms).form == expected


def test_an_engine_is_never_handed_a_form_that_it_does_not_take(many: Bundle) -> None:
    """The answer names what it takes, what there is, and what it could run."""
    with pytest.raises(
        BundleError, match=r"no fp16 graph that this engine takes.*the graph is float16; .*run fp32, int8"
    ):
        many.graph("fp16", ("float", "qdq-u8"))
    with pytest.raises(BundleError, match="qdq-s8 or qdq-s8-f16 or qdq-u8; of the bundle it can run fp32"):
        many.graph("int8", ("float",))
    with pytest.raises(BundleError, match="no int4 graph; of those that it has, this engine runs fp32"):
        many.graph("int4", ("float",))
    with pytest.raises(BundleError, match="it can run none"):
        many.graph("int8", ("other",))


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
    assert int8["auc"]["any"][0] >= 0.95  # a third of subdural blood in phantoms is days or weeks old
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
