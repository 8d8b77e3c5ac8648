"""Bundles: a model with everything that is needed to run it and to judge it.

A bundle is a folder: ``bundle.json`` (the manifest), graphs, ``records/`` and ``MODEL_CARD.md``. The manifest holds the
SHA-256 of every file; a graph is used only from bytes whose hash was checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from edgehem.errors import BundleError
from edgehem.preprocess import PreprocessSpec

SCHEMA = "edgehem.bundle/1"
MANIFEST = "bundle.json"
INPUT_KINDS = frozenset({"image", "valid"})
"""What the runtime feeds a graph."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX file of a bundle.

    Parameters
    ----------
    precision : str
        ``fp32`` or ``int8``.
    form : str
        ``float``; ``qdq-s8``: explicit symmetric int8 Q/DQ, for TensorRT and OpenVINO.
    file : str
        Relative path.
    sha256 : str
    bytes : int
    """

    precision: str
    form: str
    file: str
    sha256: str
    bytes: int


class LabelRule(msgspec.Struct, frozen=True, kw_only=True):
    """From a logit to a decision on one label.

    Parameters
    ----------
    label : str
    scale, offset : float
        Calibrated logit = scale · logit + offset (Platt, 1999).
    threshold : float
        Positive at or above this calibrated probability.
    present_from, absent_until : float
        Label-conditional conformal bounds: "present" cannot be ruled out at or above the first, "absent" not at or
        below the second (Vovk, 2012).
    """

    label: str
    scale: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    present_from: float = 0.5
    absent_until: float = 0.5


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a graph and what it means.

    Parameters
    ----------
    name : str
    kind : str
        ``hierarchical-binary``: the first label decides, the others are conditional on it.
    output : str
        The graph's output with the logits, [N, labels].
    rules : tuple of LabelRule
    conformal_error : float
        Share of wrong exclusions the conformal bounds were set for.
    """

    name: str
    kind: str
    output: str
    rules: tuple[LabelRule, ...]
    conformal_error: float = 0.05


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Outputs that say where the answer came from.

    ``attention`` is the weight per plane [N, Z], ``blood_map`` the logit of blood per cell [N, Z, Y / s, X / s].
    """

    attention: str
    blood_map: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of ``bundle.json``."""

    schema: str
    name: str
    version: str
    system: str
    intended_use: str
    demonstration: bool
    preprocess: PreprocessSpec
    inputs: dict[str, str]
    """Input kind (``image``, ``valid``) to the graph's input name."""
    graphs: tuple[Graph, ...]
    default_precision: dict[str, str]
    """Engine name to the precision it serves when none is asked for, as measured when the bundle was made."""
    heads: tuple[Head, ...]
    evidence: Evidence
    metrics: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    files: dict[str, str] = {}
    """SHA-256 of every other file of the bundle."""


class Bundle:
    """A bundle on disk whose manifest was read.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    BundleError
        If the folder holds no manifest, or one that does not follow the schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            raw = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST}") from error
        self.sha256 = hashlib.sha256(raw).hexdigest()
        """SHA-256 of the manifest, which covers every other file through its hashes."""
        try:
            self.manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise BundleError(f"{folder.name}/{MANIFEST} does not follow {SCHEMA}: {error}") from error
        if self.manifest.schema != SCHEMA:
            raise BundleError(f"{folder.name} follows {self.manifest.schema!r}; this edgehem reads {SCHEMA}")
        if not self.manifest.graphs or not self.manifest.heads:
            raise BundleError(f"{folder.name} has no graph or no head")
        if missing := INPUT_KINDS - self.manifest.inputs.keys():
            raise BundleError(f"{folder.name} names no input for {', '.join(sorted(missing))}")
        try:
            self.manifest.preprocess.check()
        except ValueError as error:
            raise BundleError(f"{folder.name}: its preprocessing cannot be done: {error}") from error

    def graph(self, precision: str) -> Graph:
        """The graph of a precision.

        Raises
        ------
        BundleError
            If there is none.
        """
        for graph in self.manifest.graphs:
            if graph.precision == precision:
                return graph
        have = ", ".join(sorted({g.precision for g in self.manifest.graphs}))
        raise BundleError(f"bundle {self.manifest.name} has no {precision} graph; it has {have}")

    def read(self, graph: Graph) -> bytes:
        """A graph's bytes, checked against the manifest.

        Raises
        ------
        BundleError
            If the file is missing or is not what the manifest says.
        """
        return self._verified(graph.file, graph.sha256)

    def verify(self) -> None:
        """Check every file of the manifest.

        Raises
        ------
        BundleError
            Naming the first file that is missing or differs.
        """
        for name, digest in [*((g.file, g.sha256) for g in self.manifest.graphs), *self.manifest.files.items()]:
            self._verified(name, digest)

    def _verified(self, name: str, digest: str) -> bytes:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(f"{name} lies outside its bundle")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{name} of bundle {self.manifest.name} cannot be read") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise BundleError(
                f"{name} of bundle {self.manifest.name} is not the file its manifest names (SHA-256 differs)"
            )
        return data


def shipped() -> list[str]:
    """Names of the bundles that come with edgehem."""
    root = files("edgehem.bundles")
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and (entry / MANIFEST).is_file())


def find(name: str | Path) -> Bundle:
    """Open a bundle by the name of a shipped one, or by path.

    A shipped name means the shipped bundle, whatever lies in the working directory; ``./name`` means the folder.

    Raises
    ------
    BundleError
        If there is no such bundle; the message lists the shipped ones.
    """
    if isinstance(name, str) and name in shipped():
        return Bundle(Path(str(files("edgehem.bundles") / name)))
    if (Path(name) / MANIFEST).is_file():
        return Bundle(Path(name))
    raise BundleError(
        f"there is no bundle {str(name)!r}; shipped: {_listed(shipped())}; or give a folder that holds {MANIFEST}"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
