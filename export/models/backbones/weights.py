"""Other people's checkpoints under our names: find the encoder in a state dict, recognise who saved it, translate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from edgehem.errors import UsageError
from edgehem.export.models.backbones.encoder import Encoder, Layout

log = logging.getLogger(__name__)

NESTED = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "ema")
"""Entries of a checkpoint that hold the weights, in the order in which they are looked for."""
COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches: missing from files of before torch 0.4.1, and read only when averaging cumulatively."""
SHOWN = 8

State = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A state dict under our names, and what became of the rest.

    Attributes
    ----------
    layout : str
        Whose names the checkpoint has.
    prefix : str
        What stood before every name of the encoder.
    state : dict of str to tensor
        For ``load_state_dict``; complete if the three lists below are empty.
    missing : tuple of str
        Weights that the encoder has and the checkpoint does not: our names.
    unexpected : tuple of str
        Weights that the checkpoint has under the prefix and the encoder does not: its names.
    misfits : tuple of str
        Weights of another shape, with both shapes.
    classifier : dict of str to tensor
        ``weight`` and ``bias`` of the classifier, which the encoder leaves out; empty if there is none or if it is more
        than one layer.
    unused : tuple of str
        Names that were left out rightly: the classifier, and whatever is not under the prefix.
    adapted_from : int or None
        Input channels of the checkpoint, where they were not ours.
    """

    layout: str
    prefix: str
    state: State
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misfits: tuple[str, ...]
    classifier: State
    unused: tuple[str, ...]
    adapted_from: int | None


def unnested(checkpoint: Mapping[str, Any]) -> State:
    """The tensors of a checkpoint, out of the entries of :data:`NESTED`; epochs, settings and the like fall away.

    Raises
    ------
    UsageError
        If there are none.
    """
    for name in NESTED:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping):
            return unnested(inner)
    state = {key: value for key, value in checkpoint.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise UsageError(
            f"the checkpoint holds no tensors, but {_listed(list(map(str, checkpoint))) or 'nothing'}; "
            f"expected a state dict, or one under {', '.join(NESTED)}"
        )
    return state


def adapted(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """A first convolution for another number of input channels.

    More channels repeat the trained ones in turn, each divided by how often it now comes; fewer get the mean of all, so
    that none is dropped, scaled by how many fewer. Either way an image with the same values in every channel gets the
    same answer as before.

    Parameters
    ----------
    weight : float [O, C, H, W]
    channels : int

    Returns
    -------
    float [O, channels, H, W]
    """
    trained = weight.shape[1]
    if channels == trained:
        return weight
    if channels < trained:
        return weight.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) * (trained / channels)
    times = torch.bincount(torch.arange(channels) % trained, minlength=trained)
    return (weight / times.to(weight).reshape(1, -1, 1, 1))[:, torch.arange(channels) % trained]


def translate(checkpoint: Mapping[str, Any], encoder: Encoder, *, prefix: str | None = None) -> Translation:
    """Bring a checkpoint under an encoder's names. Nothing is loaded, nothing is changed, nothing is refused for a gap.

    Parameters
    ----------
    checkpoint : mapping
        What ``torch.load(path, weights_only=True)`` gave: a state dict, or a checkpoint that holds one.
    encoder : Encoder
        Whose names, shapes and epsilon are wanted.
    prefix : str, optional
        What stands before the encoder's names, such as ``module.model.``; found if not given.

    Raises
    ------
    UsageError
        If no layout of this encoder can be recognised, if it is there more than once, or if the checkpoint is known to
        be of another network with the same shapes.
    """
    state = unnested(checkpoint)
    expected: State = encoder.state_dict()
    _refuse_lookalike(state, encoder)
    layout, prefix = _recognised(state, encoder, expected, prefix)
    found: State = {}
    misfits, missing, used = [], [], set()
    adapted_from = None
    for ours, like in expected.items():
        theirs = prefix + layout.rename(ours)
        value = state.get(theirs)
        if value is None:
            if ours.endswith(COUNTER):
                found[ours] = torch.zeros_like(like, device="cpu")
            else:
                missing.append(ours)
            continue
        used.add(theirs)
        if ours == f"{encoder.first}.weight" and value.ndim == 4 and value.shape[1] != like.shape[1]:
            adapted_from = value.shape[1]
            value = adapted(value, like.shape[1])
        if value.shape != like.shape and _flat(value.shape) == _flat(like.shape):
            value = value.reshape(like.shape)
        if value.shape != like.shape:
            misfits.append(f"{theirs} has shape {tuple(value.shape)}, not {tuple(like.shape)}")
            continue
        if ours.endswith("running_var") and layout.epsilon != encoder.epsilon:
            # sqrt(var + epsilon) stays what it was, and stays so after this state is saved under our epsilon.
            value = (value.double() + (layout.epsilon - encoder.epsilon)).to(value.dtype)
        found[ours] = value
    ends = tuple(f"{prefix}{name}." for name in layout.classifiers)
    rest = [key for key in state if key not in used]
    unused = [key for key in rest if not key.startswith(prefix) or (ends and key.startswith(ends))]
    classifier = {leaf: state[end + leaf] for end in ends for leaf in ("weight", "bias") if end + leaf in rest}
    return Translation(
        layout=layout.source,
        prefix=prefix,
        state=found,
        missing=tuple(missing),
        unexpected=tuple(key for key in rest if key not in set(unused)),
        misfits=tuple(misfits),
        classifier=classifier,
        unused=tuple(unused),
        adapted_from=adapted_from,
    )


def load(encoder: Encoder, checkpoint: Mapping[str, Any], *, prefix: str | None = None) -> Translation:
    """Load a checkpoint into an encoder, whole or not at all.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    checkpoint, prefix
        See :func:`translate`.

    Raises
    ------
    UsageError
        If a weight is missing, unexpected or of another shape; the message lists them.
    """
    done = translate(checkpoint, encoder, prefix=prefix)
    problems = [f"missing {key}" for key in done.missing]
    problems += [f"unexpected {key}" for key in done.unexpected]
    problems += done.misfits
    if problems:
        raise UsageError(
            f"the checkpoint, read as {done.layout}, does not fit {type(encoder).__name__}: {_listed(problems, '; ')}"
        )
    encoder.load_state_dict(done.state)
    log.info(
        "%s: weights of %s%s; left out: %s",
        type(encoder).__name__,
        done.layout,
        "" if done.adapted_from is None else f", first convolution adapted from {done.adapted_from} input channels",
        _listed(list(done.unused)) if done.unused else "nothing",
    )
    return done


def _recognised(state: State, encoder: Encoder, expected: State, prefix: str | None) -> tuple[Layout, str]:
    """The layout and prefix under which most of the encoder's names are there."""
    ranked: list[tuple[int, int, str, Layout]] = []
    for order, layout in enumerate(encoder.layouts):
        names = [layout.rename(key) for key in expected]
        first = layout.rename(f"{encoder.first}.weight")
        found = {key[: -len(first)] for key in state if key == first or key.endswith(f".{first}")}
        for candidate in found if prefix is None else {prefix}:
            hits = sum(candidate + name in state for name in names)
            ranked.append((hits, -order, candidate, layout))
    ranked.sort(key=lambda entry: entry[:2], reverse=True)
    sources = "; ".join(layout.source for layout in encoder.layouts)
    if not ranked or not ranked[0][0]:
        raise UsageError(
            f"no {type(encoder).__name__} in the checkpoint: none of its layouts ({sources}) names the first "
            f"convolution as the file does; the file has {_listed(list(state))}"
        )
    hits, _, chosen, layout = ranked[0]
    rivals = sorted({entry[2] for entry in ranked if entry[0] == hits})
    if len(rivals) > 1:
        raise UsageError(
            f"{type(encoder).__name__} is in the checkpoint {len(rivals)} times, under {', '.join(map(repr, rivals))}; "
            "say which with prefix="
        )
    return layout, chosen


def _refuse_lookalike(state: State, encoder: Encoder) -> None:
    for mark, reason in encoder.lookalikes.items():
        if any(key == mark or key.endswith(f".{mark}") for key in state):
            raise UsageError(f"the checkpoint is no {type(encoder).__name__}: {reason}")


def _flat(shape: torch.Size) -> tuple[int, ...]:
    """Shape without trailing ones: a 1 × 1 convolution and a fully connected layer are the same matrix."""
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _listed(items: list[str], separator: str = ", ") -> str:
    more = len(items) - SHOWN
    return separator.join(items[:SHOWN]) + (f"{separator}and {more} more" if more > 0 else "")
