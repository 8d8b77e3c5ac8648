"""Weights out of any checkpoint: read as data, found, converted, and loaded whole or not at all. Needs torch."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import random
import struct
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402

from edgehem.errors import MissingExtraError, UsageError  # noqa: E402
from edgehem.export import checkpoint_file  # noqa: E402
from edgehem.export.checkpoint import described, load, read  # noqa: E402
from edgehem.export.factory import arguments_of, build  # noqa: E402


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))


@pytest.fixture
def state() -> dict[str, Any]:
    torch.manual_seed(3)
    return dict(network().state_dict())


def saved(tmp_path: Path, content: Any, name: str = "net.pt", **options: Any) -> Path:
    path = tmp_path / name
    torch.save(content, path, **options)
    return path


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


LAYOUTS = {
    "plain": (lambda s: s, "", ""),
    "state_dict": (lambda s: {"state_dict": s, "epoch": 3}, "state_dict", ""),
    "model": (lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, "model", ""),
    "model_state_dict": (lambda s: {"model_state_dict": s}, "model_state_dict", ""),
    "net": (lambda s: {"net": prefixed(s, "module.")}, "net", "module."),
    "ema alone": (lambda s: {"ema": s, "steps": 5}, "ema", ""),
    "nested twice": (lambda s: {"model": {"state_dict": s}}, "model.state_dict", ""),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), "", ""),
    "lightning": (
        lambda s: {
            "state_dict": {**prefixed(s, "model."), "loss.pos_weight": torch.ones(2)},
            "pytorch-lightning_version": "2.4.0",
            "hyper_parameters": {"lr": 1e-3, "depth": 3},
            "optimizer_states": [],
        },
        "state_dict",
        "model.",
    ),
    "compiled in lightning": (
        lambda s: {"state_dict": prefixed(s, "net._orig_mod.module.")},
        "state_dict",
        "net.module.",
    ),
    "compiled inside": (lambda s: {k.replace("2.0", "2._orig_mod.0"): v for k, v in s.items()}, "", ""),
    "any other": (lambda s: prefixed(s, "lit.backbone."), "", "lit.backbone."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_common_layout_is_found_and_said(layout: str, state: dict[str, Any], tmp_path: Path) -> None:
    wrap, entry, prefix = LAYOUTS[layout]
    path = saved(tmp_path, wrap(state))
    model = network()
    record = load(model, read(path))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert (record["entry"], record["prefix"]) == (entry, prefix)
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["format"] == "torch" and record["loaded"] == len(state)
    assert str(tmp_path) not in json.dumps(record)
    assert record["weights"] == ("ema" if layout == "ema alone" else "raw")
    assert str(len(state)) in described(record)
    if layout == "lightning":
        assert record["lightning"] and {"hyper_parameters", "optimizer_states"} <= set(record["ignored_entries"])
        assert record["ignored_weights"] == {"count": 1, "names": ["loss.pos_weight"]}


def test_the_format_of_before_torch_1_6(state: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, state, _use_new_zipfile_serialization=False)
    assert load(network(), read(path))["format"] == "torch, before 1.6"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
        lambda raw, ema: {"model": prefixed(raw, "module."), "ema": {"shadow": ema}},
        lambda raw, ema: {"state_dict": {**prefixed(raw, "model."), **prefixed(ema, "model_ema.module.")}},
        # An average without buffers is still an average.
        lambda raw, ema: {
            **prefixed(raw, "net."),
            **prefixed({k: v for k, v in ema.items() if "run" not in k}, "ema."),
        },
    ],
)
def test_trained_or_averaged_is_asked_and_never_guessed(wrap: Any, state: dict[str, Any], tmp_path: Path) -> None:
    ema = {key: value * 2 for key, value in state.items()}
    path = saved(tmp_path, wrap(state, ema))
    with pytest.raises(UsageError, match="weights=raw"):
        load(network(), read(path))
    for choice, expected in (("raw", state), ("ema", ema)):
        model = network()
        try:
            record = load(model, read(path, weights=choice))
        except UsageError as error:
            assert choice == "ema" and "missing 1.running_mean" in str(error)
            continue
        assert record["weights"] == choice
        assert torch.equal(model.state_dict()["0.weight"], expected["0.weight"])


def test_an_average_that_is_not_there_is_not_replaced(state: dict[str, Any], tmp_path: Path) -> None:
    for content in (state, {"state_dict": state}, {"state_dict": prefixed(state, "model.")}):
        with pytest.raises(UsageError, match="no ema weights"):
            load(network(), read(saved(tmp_path, content), weights="ema"))
    with pytest.raises(UsageError, match="no raw weights"):
        read(saved(tmp_path, {"ema": state}), weights="raw")


def test_an_entry_or_a_prefix_can_be_named(state: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, {"gen": {"best": state}, "disc": {"best": {"x": torch.zeros(1)}}})
    with pytest.raises(UsageError, match="gen, disc"):
        read(path)
    assert load(network(), read(path, weights="gen.best"))["entry"] == "gen.best"
    twice = saved(tmp_path, {**prefixed(state, "student."), **prefixed(state, "teacher.")})
    with pytest.raises(UsageError, match=r"2 times, under 'student.', 'teacher.'"):
        load(network(), read(twice))
    assert load(network(), read(twice), prefix="teacher.")["prefix"] == "teacher."


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32_and_that_is_said(dtype: str, state: dict[str, Any], tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    path = saved(tmp_path, {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()})
    model = network()
    record = load(model, read(path))
    assert record["converted"] == {f"{dtype} to float32": len(state) - 1}
    assert record["types"] == {dtype: len(state) - 1, "int64": 1}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert f"converted from {dtype}" in described(record)


@pytest.mark.parametrize(
    ("name", "value"),
    [("0.bias", float("nan")), ("2.0.weight", float("inf")), ("1.running_var", -1.0), ("0.weight", 1e300)],
)
def test_weights_that_are_no_weights_are_refused(
    name: str, value: float, state: dict[str, Any], tmp_path: Path
) -> None:
    state[name] = state[name].double() if value == 1e300 else state[name].clone()
    state[name].view(-1)[0] = value
    with pytest.raises(UsageError, match=f"not numbers, infinite or impossible: {name}"):
        load(network(), read(saved(tmp_path, state)))


def test_what_does_not_fit_is_listed_with_near_names(state: dict[str, Any], tmp_path: Path) -> None:
    state["2.fc.weight"] = state.pop("2.0.weight")
    state["0.bias"] = torch.zeros(9)
    state["extra"] = torch.zeros(1)
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load(model, read(saved(tmp_path, state)), called="my network")
    message = str(caught.value)
    assert "does not fit my network: missing 2.0.weight (is it 2.fc.weight?); unexpected 2.fc.weight" in message
    assert "unexpected extra; 0.bias has shape (9,), not (4,)" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "half loaded"
    many = {f"x{i}.weight": torch.zeros(1) for i in range(40)}
    with pytest.raises(UsageError, match="and 40 more"):
        load(network(), read(saved(tmp_path, many)))


def test_counters_of_old_files_are_filled_in(state: dict[str, Any], tmp_path: Path) -> None:
    del state["1.num_batches_tracked"]
    assert load(network(), read(saved(tmp_path, state)))["filled_in"] == ["1.num_batches_tracked"]
    state["0.bias"] = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(UsageError, match=r"0\.bias holds torch\.int32"):
        load(network(), read(saved(tmp_path, state)))


def test_shared_weights_may_be_stored_once(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    state = dict(tied().state_dict())
    del state["1.weight"]
    model = tied()
    assert load(model, read(saved(tmp_path, state)))["filled_in"] == ["1.weight"]
    assert torch.equal(model.state_dict()["1.weight"], state["0.weight"])


class Bomb:
    """Leaves a mark if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_code_is_refused_with_the_remedy_and_never_run(state: dict[str, Any], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(mark)))
    paths = [
        tmp_path / "raw.pt",
        saved(tmp_path, {"state_dict": state, "callback": Bomb(mark)}, "callback.ckpt"),
        saved(tmp_path, network(), "module.pt"),
        saved(tmp_path, {"state_dict": state, "hyper_parameters": argparse.Namespace(lr=1)}, "namespace.ckpt"),
    ]
    for path in paths:
        with pytest.raises(UsageError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
            read(path)
    assert not mark.exists()
    with pytest.raises(UsageError, match=r"argparse\.Namespace"):
        read(paths[-1])


def spoilt(tmp_path: Path, state: dict[str, Any], how: str) -> Path:
    path = saved(tmp_path, state)
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "flipped":
        place = bytes(data).index(state["0.weight"].numpy().tobytes())
        data[place + 5] ^= 0x10
    else:
        data = bytearray(
            {"empty": b"", "text": b"not a checkpoint\n" * 9, "zeros": bytes(4096), "pickle": b"\x80\x02x"}[how]
        )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("empty", "is empty"),
        ("text", "no checkpoint"),
        ("zeros", "no checkpoint"),
        ("pickle", "net.pt"),
        ("cut", "damaged or cut short"),
        ("flipped", "checksum"),  # torch itself would load it
    ],
)
def test_damaged_files_say_so(how: str, said: str, state: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read(spoilt(tmp_path, state, how))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_spoilt_at_random_are_refused_in_words(zipped: bool, state: dict[str, Any], tmp_path: Path) -> None:
    path, rng = saved(tmp_path, state, _use_new_zipfile_serialization=zipped), random.Random(0)
    good = path.read_bytes()
    for _ in range(150):
        data = bytearray(good)
        place = rng.randrange(len(data))
        spoil = rng.randrange(3)
        if spoil == 0:
            data[place] = rng.randrange(256)
        elif spoil == 1:
            del data[place : place + rng.randrange(64)]
        else:
            data[place:place] = rng.randbytes(rng.randrange(32))
        path.write_bytes(data)
        with suppress(UsageError):  # or loaded, where the damage is in padding, or in values without a checksum
            load(network(), read(path))


def test_strange_files_are_refused(state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        read(tmp_path / "nowhere.pt")
    script = tmp_path / "script.pt"
    with zipfile.ZipFile(script, "w") as archive:  # as torch.jit.save lays it out
        for name in ("script/data.pkl", "script/code/__torch__.py", "script/constants.pkl"):
            archive.writestr(name, b"\x80\x02}.")
    with pytest.raises(UsageError, match="TorchScript"):
        read(script)
    with pytest.raises(UsageError, match="holds a Tensor"):
        read(saved(tmp_path, torch.zeros(3)))
    with pytest.raises(UsageError, match="no state dict of tensors, but a"):
        read(saved(tmp_path, {"a": 1}))
    strange = (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.float8_e4m3fn))
    for tensor in (torch.eye(3).to_sparse(), torch.empty(2, device="meta"), *strange):
        with pytest.raises(UsageError, match="sparse, quantised, complex"):
            read(saved(tmp_path, {"w": tensor}))
    with pytest.raises(UsageError, match="declares tensors"):
        read(saved(tmp_path, {"w": torch.zeros(1).expand(2**40)}))
    monkeypatch.setattr(checkpoint_file, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match="at most"):
        read(saved(tmp_path, state))


def test_safetensors(state: dict[str, Any], tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.torch", reason="optional")
    path = tmp_path / "net.safetensors"
    package.save_file(prefixed(state, "model."), path)
    model = network()
    record = load(model, read(path))
    assert record["format"] == "safetensors" and record["prefix"] == "model."
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"])
    data = path.read_bytes()
    for broken in (data[:-7], data[:40], struct.pack("<Q", 2**31) + data[8:], data[:9] + b"?" + data[10:]):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match=r"damaged or cut short|cut short|header of"):
            read(path)


def test_safetensors_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    with pytest.raises(MissingExtraError, match="safetensors"):
        read(path)


MODULE = """
import torch
from torch import nn

class Nets:
    @staticmethod
    def small(width=4, name="x"):
        assert name == "x"
        return nn.Linear(width, 2)

def wrong(): return 3
def broken(): raise RuntimeError("no such data")
ready = nn.Linear(2, 2)
"""


def test_a_users_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgehem_test_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    before = list(sys.path)
    with pytest.raises(UsageError, match="only when asked"):
        build("edgehem_test_nets:Nets.small")
    made = build("edgehem_test_nets:Nets.small", arguments_of(["width=7", "name=x"]), folder=tmp_path)
    assert isinstance(made, nn.Linear) and made.in_features == 7
    assert sys.path == before
    for target, said in {
        "edgehem_test_nets:wrong": "returned a int",
        "edgehem_test_nets:broken": "no such data",
        "edgehem_test_nets:nothing": "has no nothing",
        "edgehem_test_nets:ready": "name a function or class",
        "edgehem_test_nets": "not of the form",
        "os.system('x'):y": "not of the form",
        "edgehem_no_such_module:f": "no module called edgehem_no_such_module",
    }.items():
        with pytest.raises(UsageError, match=said):
            build(target, folder=tmp_path)
    with pytest.raises(UsageError, match=r"small\(width=4, name='x'\) called with {'depth': 3} failed"):
        build("edgehem_test_nets:Nets.small", {"depth": 3}, folder=tmp_path)
    with pytest.raises(UsageError, match="not name=value"):
        arguments_of(["3"])
    monkeypatch.delitem(sys.modules, "edgehem_test_nets")
