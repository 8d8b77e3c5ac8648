"""Bundles: a model with everything that is needed to run it and to judge it.

A bundle is a folder: ``bundle.json`` (the manifest), graphs, ``records/`` and ``MODEL_CARD.md``. The manifest holds the
SHA-256 of every file; a graph is used only from bytes whose hash was checked. A signature over the manifest covers the
whole bundle (:mod:`edgehem.signature`); a device with a trust store uses no other (:mod:`edgehem.trust`).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edgehem import strict_json
from edgehem.durable import read_once
from edgehem.errors import BundleError
from edgehem.onnx_wire import check_whole
from edgehem.preprocess import PreprocessSpec
from edgehem.signature import SIGNATURE, read_signature
from edgehem.trust import Mark, TrustStore

SCHEMA = "edgehem.bundle/1"
MANIFEST = "bundle.json"
REQUIRED_KINDS = frozenset({"image"})
INPUT_KINDS = REQUIRED_KINDS | {"valid"}
"""What the runtime feeds a graph."""
HALF_FORMS = frozenset({"float16", "qdq-s8-f16"})
"""Forms of graphs that are written in float16: their own arithmetic, and the type of their image."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_GRAPH_BYTES = 1024 * 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Of records, cards and whatever else is no graph."""
MAX_FILES = 1024
MAX_TENSOR_VALUES = 2**26
"""Of one study's tensor: 256 MiB in float32, eleven times the largest of ours."""
_NAME_CHARACTERS = 128
_PART = re.compile(r"(?!\.)[ !#-)+-.0-9;=@-\[\]-{}~]{1,128}(?<![ .])")
"""A file or folder name that means the same on every file system: ASCII without ``"*/:<>?\\|``, not hidden, no dot or
blank at its end."""
_SHA256 = re.compile("[0-9a-f]{64}")


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX file of a bundle.

    Parameters
    ----------
    precision : str
        ``fp32``, ``fp16`` or ``int8``.
    form : str
        What an engine must understand to run it:

        ``float``: float32 throughout.
        ``float16``: float16 throughout, but for operators that would lose too much. The input of kind ``image`` is
        float16, every other input and every output float32. For TensorRT and other GPU engines whose precision comes
        from the graph.
        ``qdq-s8``: explicit symmetric int8 Q/DQ in a float32 graph, for TensorRT and OpenVINO.
        ``qdq-s8-f16``: the same with all that stays float in float16, and inputs as of ``float16``.
        ``qdq-u8``: as ``qdq-s8`` with uint8 activations, for ONNX Runtime on the CPU.
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


class StageBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage of a warm study may take: ``ms + per_slice_ms · slices``, in milliseconds."""

    ms: float
    per_slice_ms: float = 0.0

    def of(self, slices: int) -> float:
        """For a study of so many slices, ms."""
        return self.ms + self.per_slice_ms * slices


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
    evidence: Evidence | None = None
    budgets: dict[str, StageBudget] = {}
    """Stage (as in a result's ``timings_ms``) to its budget on the device that the bundle is meant for."""
    metrics: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    files: dict[str, str] = {}
    """SHA-256 of every other file of the bundle."""
    serial: int = 0
    """Counts the signed bundles of one name: a device that accepted one refuses those before it. 0: never signed."""


class Bundle:
    """A bundle on disk whose manifest was read.

    Parameters
    ----------
    folder : Path
    trust : TrustStore, optional
        Who may have signed it. Without one, a signature is not looked at.
    allow_older : bool
        Take a bundle that is older than one the trust store accepted.

    Attributes
    ----------
    raw : bytes
        The manifest as it was read.
    sha256 : str
        Of the manifest, which covers every other file through its hashes.
    signed_by : str or None
        Id of the trusted key whose signature was verified; None where nobody's was.

    Raises
    ------
    BundleError
        If the folder holds no manifest, or one that does not follow the schema, or that `trust` refuses.
    """

    def __init__(self, folder: Path, *, trust: TrustStore | None = None, allow_older: bool = False) -> None:
        self.folder = folder
        self._trust, self._allow_older = trust, allow_older
        try:
            raw, _ = read_once(folder / MANIFEST, MAX_MANIFEST_BYTES)
        except OSError as error:
            raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST}: {error.strerror}") from error
        self.raw, self.sha256 = raw, hashlib.sha256(raw).hexdigest()
        # Before the manifest is parsed: where only signed bundles count, nobody else's bytes reach the parser.
        self.signed_by = None if trust is None else trust.check_signature(raw, read_signature(folder))
        try:
            self.manifest = strict_json.decode(raw, Manifest)
        except ValueError as error:
            raise BundleError(f"{folder.name}/{MANIFEST} does not follow {SCHEMA}: {error}") from error
        _check(self.manifest, folder.name)
        if trust is not None and not allow_older:
            trust.check_serial(self.manifest.name, self._mark)

    @property
    def _mark(self) -> Mark:
        return Mark(serial=self.manifest.serial, sha256=self.sha256)

    def accept(self) -> None:
        """Have the trust store refuse older bundles from now on; nothing without one, or where older ones are allowed.

        To be called once the bundle was put to use: a copy that turns out to be damaged must not bar the way back.

        Raises
        ------
        BundleError
            If a newer bundle was accepted meanwhile, or the trust store cannot note this one.
        """
        if self._trust is not None and not self._allow_older:
            self._trust.accept(self.manifest.name, self._mark)

    def graph(self, precision: str, forms: Sequence[str] = ()) -> Graph:
        """The graph of a precision.

        Parameters
        ----------
        precision : str
        forms : sequence of str
            What the engine takes, the form that suits it first: no other is returned. By default the first of any form.

        Raises
        ------
        BundleError
            If there is none, with those that there are.
        """
        graphs = self.manifest.graphs
        found = [graph for graph in graphs if graph.precision == precision and (not forms or graph.form in forms)]
        if found:
            return min(found, key=lambda graph: forms.index(graph.form)) if forms else found[0]
        usable = [graph for graph in graphs if not forms or graph.form in forms]
        have = ", ".join(sorted({g.precision for g in usable})) or "none"
        if there := sorted({graph.form for graph in graphs if graph.precision == precision}):
            raise BundleError(
                f"bundle {self.manifest.name} has no {precision} graph that this engine takes: it takes the forms "
                f"{', '.join(forms)}, and the graph is {' or '.join(there)}; of the bundle it can run {have}"
            )
        raise BundleError(
            f"bundle {self.manifest.name} has no {precision} graph; "
            + (f"of those that it has, this engine runs {have}" if forms else f"it has {have}")
        )

    def read(self, graph: Graph) -> bytes:
        """A graph's bytes, checked against the manifest.

        Raises
        ------
        BundleError
            If the file is missing, is not what the manifest says, or is no ONNX graph that is whole in itself
            (:func:`edgehem.onnx_wire.check_whole`): an engine would fetch the rest from where no hash was checked.
        """
        data = self._verified(graph.file, graph.sha256, MAX_GRAPH_BYTES)
        if len(data) != graph.bytes:
            raise BundleError(f"{graph.file} of bundle {self.manifest.name} has another size than its manifest says")
        check_whole(data, f"{graph.file} of bundle {self.manifest.name}")
        return data

    def verify(self) -> None:
        """Check every file of the bundle, and that there is none besides.

        Hidden files, which a killed process or a file manager leaves, are no part of a bundle and are passed over.
        A signature is not checked here, for which a key is needed.

        Raises
        ------
        BundleError
            Naming the first file that is missing, differs, or is not in the manifest.
        """
        for graph in self.manifest.graphs:
            self.read(graph)
        for name, digest in self.manifest.files.items():
            self._verified(name, digest, MAX_FILE_BYTES)
        listed = {MANIFEST, SIGNATURE, *self.manifest.files, *(graph.file for graph in self.manifest.graphs)}
        for name in contents(self.folder):
            if name not in listed:
                raise BundleError(f"{name!r} lies in bundle {self.manifest.name} and is not in its manifest")

    def _verified(self, name: str, digest: str, limit: int) -> bytes:
        """A file's bytes: read once, and those that were hashed are those that are returned."""
        try:
            for parent in PurePosixPath(name).parents[:-1]:
                if stat.S_ISLNK((self.folder / parent).lstat().st_mode):
                    raise BundleError(f"{parent} of bundle {self.manifest.name} is a link, which may lead outside")
            data, _ = read_once(self.folder / name, limit)
        except OSError as error:
            raise BundleError(f"{name} of bundle {self.manifest.name} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise BundleError(
                f"{name} of bundle {self.manifest.name} is not the file its manifest names (SHA-256 differs)"
            )
        return data


def contents(folder: Path) -> list[str]:
    """Names of all files in a bundle's folder but the hidden ones, sorted; relative, with ``/``.

    Whatever is no folder counts as a file. Links are named, not followed.

    Raises
    ------
    BundleError
        If a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise BundleError(f"bundle {folder.name} cannot be listed: {error.strerror}") from error

    found = []
    for place, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if name[0] != "." and name not in links]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in names + links if name[0] != "."]
    return sorted(found)


def check_names(names: Iterable[str]) -> None:
    """Make sure that names are usable for a bundle's files, and no two mean one file anywhere.

    Raises
    ------
    BundleError
    """
    seen = {MANIFEST.lower(), SIGNATURE.lower()}
    for name in names:
        if not all(_PART.fullmatch(part) for part in name.split("/")):
            raise BundleError(
                f"{name[:80]!r} lies outside its bundle, is hidden, or is no portable name (ASCII, relative, with /)"
            )
        if name.lower() in seen:
            raise BundleError(f"{name[:80]!r} names a file that has another part in the bundle already")
        seen.add(name.lower())


def _check(manifest: Manifest, where: str) -> None:
    """What the types cannot say.

    Raises
    ------
    BundleError
    """
    if manifest.schema != SCHEMA:
        raise BundleError(f"{where} follows {manifest.schema[:40]!r}; this edgehem reads {SCHEMA}")
    for text in (manifest.name, manifest.version):
        if not text.strip() or not text.isprintable() or len(text) > _NAME_CHARACTERS:
            raise BundleError(f"{where} has no printable name and version of up to {_NAME_CHARACTERS} characters")
    if not manifest.graphs or not manifest.heads:
        raise BundleError(f"{where} has no graph or no head")
    if missing := REQUIRED_KINDS - manifest.inputs.keys():
        raise BundleError(f"{where} names no input for {', '.join(sorted(missing))}")
    if unknown := manifest.inputs.keys() - INPUT_KINDS:
        raise BundleError(f"{where} names inputs of unknown kind {', '.join(sorted(unknown))[:80]}")
    _check_budgets(manifest.budgets, where)
    if manifest.serial < 0:
        raise BundleError(f"{where} has serial {manifest.serial}; 0 or more is expected")
    if len(manifest.files) + len(manifest.graphs) > MAX_FILES:
        raise BundleError(f"{where} names more than {MAX_FILES} files")
    check_names([*(graph.file for graph in manifest.graphs), *manifest.files])
    for digest in (*(graph.sha256 for graph in manifest.graphs), *manifest.files.values()):
        if not _SHA256.fullmatch(digest):
            raise BundleError(f"{where} names {digest[:80]!r} for a SHA-256: 64 of 0-9 and a-f are expected")
    spec = manifest.preprocess
    if math.prod(max(n, 0) for n in (*spec.shape, len(spec.windows))) > MAX_TENSOR_VALUES:
        raise BundleError(f"{where} asks for a tensor of more than {MAX_TENSOR_VALUES} values")
    try:
        spec.check()
    except ValueError as error:
        raise BundleError(f"{where}: its preprocessing cannot be done: {error}") from error


def _check_budgets(budgets: Mapping[str, StageBudget], where: str) -> None:
    for stage, budget in budgets.items():
        if not (math.isfinite(budget.ms + budget.per_slice_ms) and min(budget.ms, budget.per_slice_ms) >= 0):
            raise BundleError(f"{where} has a budget for {stage[:40]!r} that is no time")


def shipped() -> list[str]:
    """Names of the bundles that come with edgehem."""
    root = files("edgehem.bundles")
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and (entry / MANIFEST).is_file())


def locate(name: str | Path) -> Path:
    """The folder of a shipped bundle, by its name, or of another one, by path.

    A shipped name means the shipped bundle, whatever lies in the working directory; ``./name`` means the folder.

    Raises
    ------
    BundleError
        If there is no such bundle; the message lists the shipped ones.
    """
    if isinstance(name, str) and name in shipped():
        return Path(str(files("edgehem.bundles") / name))
    if (Path(name) / MANIFEST).is_file():
        return Path(name)
    raise BundleError(
        f"there is no bundle {str(name)!r}; shipped: {_listed(shipped())}; or give a folder that holds {MANIFEST}"
    )


def find(name: str | Path, *, trust: str | Path | None = None, allow_older: bool = False) -> Bundle:
    """Open a bundle as this device's trust policy has it.

    Parameters
    ----------
    name : str or Path
        See :func:`locate`.
    trust : str or Path, optional
        A trust store's folder; ``EDGEHEM_TRUST`` by default. Where neither is given, unsigned bundles are opened too.
    allow_older : bool
        Open a bundle that is older than one that was accepted.

    Raises
    ------
    BundleError
        If there is no such bundle, or it is refused.
    UsageError
        If the trust store cannot be used.
    MissingExtraError
        If there is a trust store, and the [sign] extra is not installed.
    """
    return Bundle(locate(name), trust=TrustStore.configured(trust), allow_older=allow_older)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
