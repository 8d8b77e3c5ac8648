"""Weights out of other people's checkpoints: read as data, never executed, and loaded whole or not at all.

:func:`read` takes the tensors out of a file and says where they lay; :func:`load` puts them into a module, strictly.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgehem.errors import UsageError
from edgehem.export.checkpoint_file import MAX_BYTES, SHOWN, listed, opened

DEPTH = 3
"""Entries within entries that are looked into."""
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
"""Entries of a checkpoint that hold the weights as they were trained."""
AVERAGED = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "averaged", "swa_model", "shadow")
"""Entries that hold their running average; also prefixes, where both lie in one state dict."""
CHOICES = ("raw", "ema")
COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module it wrapped, anywhere in the tree."""
COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches: missing from files of before torch 0.4.1, and read only when averaging cumulatively."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Eight-bit floats are left out: they mean nothing without scales that lie elsewhere."""
ALIKE = 0.6
"""Least similarity (difflib) of the rest of two names for one to be suggested for the other."""

State = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of a checkpoint.

    Attributes
    ----------
    name : str
        The file's, without folders: for messages.
    state : dict of str to tensor
        On the CPU, under the file's names, in the file's types.
    choice : str or None
        Which of trained and averaged weights was asked for.
    record : dict
        SHA-256, format, entry, counts, types, and what was ignored: JSON.
    """

    name: str
    state: State
    choice: str | None
    record: dict[str, Any]


def read(path: Path, *, weights: str | None = None) -> Weights:
    """Read the weights of a file.

    Parameters
    ----------
    path : Path
        ``.pt``, ``.pth``, ``.ckpt`` (torch, opened with ``weights_only``: nothing in it is executed) or
        ``.safetensors``; recognised by content.
    weights : str, optional
        ``raw`` or ``ema`` where the file has both, or the entry that holds them, as ``generator.state_dict``.

    Raises
    ------
    UsageError
        If the file is missing, empty, too large, damaged, no checkpoint, or needs code to be read; if it holds several
        sets of weights and `weights` does not say which.
    MissingExtraError
        For safetensors without that package.
    """
    kind, data, content = opened(path)
    if not isinstance(content, Mapping):
        raise UsageError(f"{path.name} holds a {type(content).__name__}, not a state dict of tensors")
    averaged, entry, found = _chosen(content, weights, path.name)
    state = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    _refuse_strange(state, path.name)
    ignored = [str(key) for key in content if str(key) != entry.partition(".")[0]] if entry else []
    ignored += [f"{entry}.{key}".lstrip(".") for key in found if key not in state]
    record = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "format": kind,
        "entry": entry,
        "weights": averaged,
        "tensors": len(state),
        "parameters": sum(value.numel() for value in state.values()),
        "types": dict(Counter(str(value.dtype).removeprefix("torch.") for value in state.values())),
        "ignored_entries": sorted(ignored)[: 4 * SHOWN],
        "lightning": "pytorch-lightning_version" in content,
    }
    return Weights(name=path.name, state=state, choice=weights if weights in CHOICES else None, record=record)


def load(model: nn.Module, weights: Weights, *, prefix: str | None = None, called: str = "") -> dict[str, Any]:
    """Put weights into a module, in place, whole or not at all.

    Parameters
    ----------
    model : Module
    weights : Weights
        Half and double precision become what the module has, float32.
    prefix : str, optional
        What stands before the module's names in the file, as ``model.``; found if not given. What lies beside it (a
        loss with weights, say) is ignored and recorded.
    called : str
        The module's name in messages; its class by default.

    Returns
    -------
    dict
        `weights.record` with the prefix, what was converted, filled in and ignored.

    Raises
    ------
    UsageError
        If a weight is missing, unexpected, of another shape or kind, or not finite; the message lists them.
    """
    called = called or type(model).__name__
    expected = model.state_dict()
    known = {key.replace(COMPILED, ""): value for key, value in weights.state.items()}
    if len(known) < len(weights.state):
        raise UsageError(f"{weights.name} has the same weights with and without {COMPILED!r}")
    prefix = _prefix(known, expected, weights, prefix)
    state = {key.removeprefix(prefix): value for key, value in known.items() if key.startswith(prefix)}
    found = len(state)
    filled = {key: expected[key] for key in expected if key not in state and key.endswith(COUNTER)}
    filled |= _tied(state, expected)
    state |= filled
    problems = [*_missing(state, expected), *(f"unexpected {key}" for key in state if key not in expected)]
    problems += [
        f"{key} has shape {tuple(value.shape)}, not {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    problems += [
        f"{key} holds {value.dtype}, not {expected[key].dtype}"
        for key, value in state.items()
        if key in expected and value.is_floating_point() != expected[key].is_floating_point()
    ]
    if problems:
        raise UsageError(f"{weights.name} does not fit {called}: {listed(problems)}")
    converted = {key: value.to(expected[key].dtype) for key, value in state.items()}
    bad = [key for key, value in converted.items() if value.is_floating_point() and not value.isfinite().all()]
    bad += [key for key, value in converted.items() if key.endswith("running_var") and (value < 0).any()]
    if bad:
        raise UsageError(f"{weights.name} holds weights that are not numbers, infinite or impossible: {listed(bad)}")
    model.load_state_dict(converted)
    outside = [key for key in known if not key.startswith(prefix)]
    changed = Counter(
        f"{value.dtype} to {expected[key].dtype}".replace("torch.", "")
        for key, value in state.items()
        if value.dtype != expected[key].dtype
    )
    return {
        **weights.record,
        "prefix": prefix,
        "weights": "ema" if _averaged(prefix) else weights.record["weights"],
        "loaded": found,
        "converted": dict(changed),
        "filled_in": list(filled)[: 4 * SHOWN],
        "ignored_weights": {"count": len(outside), "names": outside[: 4 * SHOWN]},
    }


def described(record: Mapping[str, Any]) -> str:
    """One line of what :func:`load` did, for a person."""
    parts = [f"{record['loaded']} {record['weights']} weights from a {record['format']} file"]
    if record["entry"] or record["prefix"]:
        parts.append(f"under {record['entry'] or 'no entry'}, prefix {record['prefix'] or 'none'}")
    parts += [f"{count} converted from {change}" for change, count in record["converted"].items()]
    if count := record["ignored_weights"]["count"]:
        parts.append(f"{count} others ignored")
    return "; ".join(parts)


def _sets(content: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, Mapping[Any, Any]]]:
    """Every set of weights: kind, entry, tensors."""
    inner = [
        (str(key), value)
        for key, value in content.items()
        if isinstance(value, Mapping) and len(path) < DEPTH and str(key) in (*NESTED, *AVERAGED)
    ]
    deeper = [found for key, value in inner for found in _sets(value, (*path, key))]
    yield from deeper
    if not deeper and any(isinstance(value, torch.Tensor) for value in content.values()):
        yield ("ema" if set(path) & set(AVERAGED) else "raw"), ".".join(path), content


def _chosen(content: Mapping[Any, Any], weights: str | None, name: str) -> tuple[str, str, Mapping[Any, Any]]:
    """The set asked for, or the only one; nothing is guessed."""
    if weights is not None and weights not in CHOICES:
        inner: Any = content
        for part in weights.split("."):
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not any(isinstance(value, torch.Tensor) for value in inner.values()):
            raise UsageError(f"{name} has no weights at {weights!r}; it has {listed(list(map(str, content)), ', ')}")
        return ("ema" if _averaged(weights) else "raw"), weights, inner
    found = list(_sets(content))
    wanted = [item for item in found if weights is None or item[0] == weights] if len(found) > 1 else found
    if not found:
        raise UsageError(
            f"{name} holds no state dict of tensors, but {listed(list(map(str, content)), ', ') or 'nothing'}; "
            "say where they are with weights=ENTRY"
        )
    if not wanted:
        raise UsageError(f"{name} has no {weights} weights; it has {', '.join(entry for _, entry, _ in found)}")
    if len(wanted) > 1:
        choices = "; ".join(f"{kind} in {entry!r}" for kind, entry, _ in wanted)
        raise UsageError(
            f"{name} holds {len(wanted)} sets of weights ({choices}); say which with weights=raw, weights=ema or "
            "weights=ENTRY"
        )
    kind, entry, _ = wanted[0]
    if weights == "raw" and kind == "ema":
        raise UsageError(f"{name} has no raw weights, only averaged ones in {entry!r}")
    return wanted[0]  # where ema was asked for and this is raw, a prefix inside may still name it: see _prefix


def _refuse_strange(state: State, name: str) -> None:
    """Only plain numbers can go into a graph."""
    strange = [
        f"{key} ({value.layout if value.layout != torch.strided else value.dtype})".replace("torch.", "")
        for key, value in state.items()
        if value.layout != torch.strided
        or value.is_quantized
        or value.is_complex()
        or value.device.type != "cpu"
        or (value.is_floating_point() and value.dtype not in FLOATS)
    ]
    if strange:
        raise UsageError(
            f"{name} holds tensors that are sparse, quantised, complex or without values: {listed(strange)}"
        )
    if sum(value.numel() * value.element_size() for value in state.values()) > MAX_BYTES:
        raise UsageError(f"{name} declares tensors of more than {MAX_BYTES >> 30} GiB")


def _prefix(state: State, expected: State, weights: Weights, prefix: str | None) -> str:
    """What stands before the module's names: the prefix under which most of them are."""
    if prefix is not None:
        if not any(key.startswith(prefix) for key in state):
            raise UsageError(f"{weights.name} has no name that starts with {prefix!r}")
        return prefix
    hits: Counter[str] = Counter()
    by_leaf: dict[str, list[str]] = {}
    for key in state:
        by_leaf.setdefault(key.rpartition(".")[2], []).append(key)
    for name in expected:
        for key in by_leaf.get(name.rpartition(".")[2], ()):
            if key == name or key.endswith(f".{name}"):
                hits[key[: len(key) - len(name)]] += 1
    inside = weights.record["weights"] == "ema"
    if not hits:
        return ""
    most = max(hits.values())
    best = {candidate: _averaged(candidate) for candidate, count in hits.items() if count == most}
    # An average often has no buffers, so it is smaller; it must be chosen or left on purpose all the same.
    best |= {
        candidate: _averaged(candidate)
        for candidate, count in hits.items()
        if count * 3 >= most and _averaged(candidate) not in best.values()
    }
    if len(best) > 1 and weights.choice:
        best = {candidate: mean for candidate, mean in best.items() if mean == (weights.choice == "ema")} or best
    if len(best) > 1:
        raise UsageError(
            f"{weights.name} has these weights {len(best)} times, under {', '.join(map(repr, sorted(best)))}; "
            "say which with prefix=" + (" or weights=raw, weights=ema" if any(best.values()) else "")
        )
    chosen, mean = best.popitem()
    if weights.choice and (weights.choice == "ema") != (mean or inside):
        raise UsageError(f"{weights.name} has no {weights.choice} weights; it has others under {chosen!r}")
    return chosen


def _tied(state: State, expected: State) -> State:
    """Weights under the other names that the module has for them: safetensors stores what is shared once."""
    places: dict[tuple[int, torch.Size], str] = {}
    for key, value in expected.items():
        if key in state and value.numel():
            places[value.data_ptr(), value.shape] = key
    return {
        key: state[places[value.data_ptr(), value.shape]]
        for key, value in expected.items()
        if key not in state and value.numel() and (value.data_ptr(), value.shape) in places
    }


def _averaged(prefix: str) -> bool:
    return bool(set(prefix.split(".")) & set(AVERAGED))


def _missing(state: State, expected: State) -> Iterator[str]:
    """What is missing, each with the spare weight that could be it: same shape, same end of the name."""
    spare = [key for key in state if key not in expected]
    named = 0
    for key in expected:
        if key in state:
            continue
        likely = []
        if named < SHOWN:  # comparing names is slow, and more are not shown
            stem, _, leaf = key.rpartition(".")
            scored = [
                (SequenceMatcher(None, stem, other.rpartition(".")[0]).ratio(), other)
                for other in spare
                if other.rpartition(".")[2] == leaf and state[other].shape == expected[key].shape
            ]
            likely = [other for score, other in sorted(scored)[-1:] if score >= ALIKE or len(scored) == 1]
        named += 1
        yield f"missing {key}" + (f" (is it {likely[0]}?)" if likely else "")
