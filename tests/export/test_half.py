"""Graphs written in float16: right types everywhere, deterministic, near the float graph, wide where they must be."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgehem.bundle import Bundle, Head, LabelRule, find  # noqa: E402
from edgehem.errors import BudgetError, UsageError  # noqa: E402
from edgehem.export import commands  # noqa: E402
from edgehem.export.graph import finished, opset  # noqa: E402
from edgehem.export.half import HALF, WIDE, forced, halved, prepared  # noqa: E402
from edgehem.export.half_search import (  # noqa: E402
    HALF_BUDGET,
    HalfSearch,
    budget_beside,
    largest,
    over,
    run_exactly,
    write_half,
)
from edgehem.export.int8.judge import Budget, Figures, Judge  # noqa: E402
from edgehem.export.parity import declared  # noqa: E402
from edgehem.export.readiness import lint  # noqa: E402

FLOAT = TensorProto.FLOAT
Values = dict[str, npt.NDArray[Any]]


class Net:
    """Nodes in a row on an input x [batch, 4, 6, 6]; the last one makes y."""

    def __init__(self, version: int = 18) -> None:
        self.version = version
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self.inputs = [helper.make_tensor_value_info("x", FLOAT, ["batch", 4, 6, 6])]

    def store(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        self.stored.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, out: str, count: int = 1, **attributes: Any) -> str:
        outputs = [out, *(f"{out}{i}" for i in range(1, count))]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=f"n_{out}", **attributes))
        return out

    def model(self, *outputs: str) -> Any:
        ends = [helper.make_empty_tensor_value_info(name) for name in outputs or ("y",)]
        graph = helper.make_graph(self.nodes, "net", self.inputs, ends, self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.version)], ir_version=10)


def feed(count: int = 2, seed: int = 0) -> list[Values]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.random((1, 4, 6, 6), np.float32)} for _ in range(count)]


def written(model: Any, **settings: Any) -> Any:
    """In float16, checked by ONNX with strict types, and as a reader finds it."""
    made, data = finished(halved(prepared(model), **settings), system="test")
    assert onnx.load_from_string(data) == made
    return made


def types(model: Any) -> dict[str, int]:
    found = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    return found


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def conv_net(out: str = "y") -> Net:
    net = Net()
    rng = np.random.default_rng(1)
    net.store("w", rng.normal(size=(8, 4, 3, 3)))
    net.store("b", rng.normal(size=8))
    net.add("Conv", "x", "w", "b", out="c", pads=[1] * 4)
    net.add("Relu", "c", out=out)
    return net


def test_a_plain_net_is_float16_between_its_ends() -> None:
    model = conv_net().model()
    before = model.SerializeToString()
    made = written(model, inputs=["x"])
    assert model.SerializeToString() == before
    known = types(made)
    assert known["x"] == known["w"] == known["b"] == known["c"] == HALF and known["y"] == WIDE
    assert kinds(made) == ["Conv", "Relu", "Cast"]
    kept = written(model)
    assert types(kept)["x"] == WIDE and kinds(kept) == ["Cast", "Conv", "Relu", "Cast"]
    for one in (made, kept):
        for wanted, given in zip(run_exactly(model, feed()), run_exactly(one, feed()), strict=True):
            assert given["y"].dtype == np.float32
            assert np.allclose(wanted["y"], given["y"], atol=2e-3 * np.abs(wanted["y"]).max())
            assert not np.array_equal(wanted["y"], given["y"])


def test_an_output_that_is_also_read_inside_keeps_its_name() -> None:
    net = conv_net()
    net.add("Sigmoid", "y", out="z")
    made = written(net.model("y", "z"), inputs=["x"])
    assert [value.name for value in made.graph.output] == ["y", "z"]
    assert types(made)["y"] == types(made)["z"] == WIDE
    assert kinds(made).count("Cast") == 2
    answer = run_exactly(made, feed(1))[0]
    assert np.allclose(answer["z"], 1 / (1 + np.exp(-answer["y"])), atol=1e-3)


def test_wide_nodes_stand_between_casts_and_share_them() -> None:
    net = conv_net("r")
    net.add("Exp", "r", out="e")
    net.add("Softmax", "r", out="s")
    net.add("Mul", "e", "s", out="y")
    made = written(net.model(), inputs=["x"], wide=["n_e", "n_s", "n_y"])
    known = types(made)
    assert known["r"] == HALF and known["e"] == known["s"] == known["y"] == WIDE
    assert kinds(made).count("Cast") == 1  # of r, once for both; what is wide already needs none
    with pytest.raises(UsageError, match="no node nowhere"):
        halved(prepared(net.model()), wide=["nowhere"])
    with pytest.raises(UsageError, match="no float32 input valid"):
        halved(prepared(net.model()), inputs=["valid"])


def test_a_constant_is_stored_in_the_types_that_are_read() -> None:
    net = Net()
    net.store("k", [0.1, 0.2, 0.3, 0.7, 0.9, 1.1])
    net.add("Mul", "x", "k", out="m")
    net.add("Add", "m", "k", out="y")
    made = written(net.model(), inputs=["x"], wide=["n_y"])
    assert sorted(types(made)[tensor.name] for tensor in made.graph.initializer) == [WIDE, HALF]
    one = written(net.model(), inputs=["x"])
    assert [tensor.name for tensor in one.graph.initializer] == ["k"]


def resize(net: Net) -> str:
    """Its scales are float32 whatever it scales."""
    net.store("scales", [1, 1, 2, 2])
    return net.add("Resize", "x", "", "scales", out="t", mode="linear")


def constant_of_shape(net: Net) -> str:
    net.add("Shape", "x", out="shape")
    net.add("ConstantOfShape", "shape", out="ones", value=helper.make_tensor("v", FLOAT, [1], [1.0]))
    return net.add("Add", "x", "ones", out="t")


def zeros_of_shape(net: Net) -> str:
    net.add("Shape", "x", out="shape")
    net.add("ConstantOfShape", "shape", out="zeros")
    return net.add("Concat", "x", "zeros", out="t", axis=1)


def constants(net: Net) -> str:
    net.add("Constant", out="two", value_float=2.0)
    net.add("Constant", out="row", value=numpy_helper.from_array(np.arange(6, dtype=np.float32)))
    net.add("Mul", "x", "two", out="d")
    return net.add("Add", "d", "row", out="t")


def casts(net: Net) -> str:
    net.add("Cast", "x", out="whole", to=TensorProto.INT32)
    net.add("Cast", "whole", out="back", to=FLOAT)
    return net.add("Sub", "x", "back", out="t")


def where(net: Net) -> str:
    net.store("half", 0.5)
    net.add("Greater", "x", "half", out="large")
    return net.add("Where", "large", "x", "half", out="t")


def top_values(net: Net) -> str:
    net.store("k", [2], np.int64)
    return net.add("TopK", "x", "k", out="t", count=2)


def norm(net: Net) -> str:
    for name in ("scale", "bias", "mean", "var"):
        net.store(name, [0.5, 1, 2, 0.25])
    return net.add("BatchNormalization", "x", "scale", "bias", "mean", "var", out="t")


def clip(net: Net) -> str:
    net.store("low", 0.25)
    return net.add("Clip", "x", "low", out="t")


def branch(net: Net) -> str:
    """Its branches read what is around them."""

    def part(kind: str) -> Any:
        node = helper.make_node(kind, ["m"], [f"{kind}_out"], name=kind)
        return helper.make_graph([node], kind, [], [helper.make_tensor_value_info(f"{kind}_out", FLOAT, None)])

    net.store("three", 3.0)
    net.store("choice", True, np.bool_)
    net.add("Mul", "x", "three", out="m")
    return net.add("If", "choice", out="t", then_branch=part("Exp"), else_branch=part("Neg"))


def pair(net: Net) -> str:
    net.store("s", 0.01)
    net.store("z", 0, np.int8)
    net.add("QuantizeLinear", "x", "s", "z", out="q")
    return net.add("DequantizeLinear", "q", "s", "z", out="t")


def drawn_noise(net: Net) -> str:
    net.add("EyeLike", "row", out="eye", dtype=FLOAT)
    net.store("row", np.zeros((6, 6)), np.int64)
    return net.add("MatMul", "x", "eye", out="t")


SHAPES: list[Callable[[Net], str]] = [
    resize, constant_of_shape, zeros_of_shape, constants, casts, where, top_values, norm, clip, branch, pair,
    drawn_noise,
]  # fmt: skip


@pytest.mark.parametrize("part", SHAPES, ids=lambda part: part.__name__)
@pytest.mark.parametrize("wide", [False, True], ids=["half", "wide"])
def test_operators_with_rules_of_their_own(part: Callable[[Net], str], wide: bool) -> None:
    """Each runs in ONNX Runtime, gives float32, and is near; with every node wide it is the same, but for x."""
    net = Net()
    net.add("Relu", part(net), out="y")
    model = net.model()
    ready = prepared(model)
    made = written(model, inputs=["x"], wide=[node.name for node in ready.graph.node] if wide else [])
    inputs = [{"x": one["x"].astype(np.float16).astype(np.float32)} for one in feed()]
    for wanted, given in zip(run_exactly(model, inputs), run_exactly(made, inputs), strict=True):
        assert given["y"].dtype == np.float32 and given["y"].shape == wanted["y"].shape
        step = 0.011 if part is pair else 4e-3 * np.abs(wanted["y"]).max()
        assert np.allclose(wanted["y"], given["y"], atol=step)
        if wide:
            assert np.array_equal(wanted["y"], given["y"])


def test_scales_of_resize_and_branches_stay_float32() -> None:
    net = Net()
    net.add("Relu", resize(net), out="y")
    made = written(net.model(), inputs=["x"])
    assert types(made)["scales"] == WIDE and types(made)["t"] == HALF
    net = Net()
    net.add("Relu", branch(net), out="y")
    assert forced(prepared(net.model())) == {"n_t": "it holds a graph of its own"}
    known = types(written(net.model(), inputs=["x"]))
    assert known["m"] == HALF and known["t"] == WIDE


def test_an_old_graph_with_pairs_is_raised_to_where_their_scales_may_be_float16() -> None:
    net = Net(version=13)
    net.add("Relu", pair(net), out="y")
    made = written(net.model(), inputs=["x"])
    assert opset(made) == 19
    assert types(made)["s"] == types(made)["t"] == HALF
    plain = Net(version=13)
    plain.add("Relu", "x", out="y")
    assert opset(written(plain.model())) == 13


def test_functions_are_taken_apart() -> None:
    body = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    net = Net()
    net.nodes.append(helper.make_node("Twice", ["x"], ["y"], name="n_y", domain="own"))
    model = net.model()
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("own", 1))
    made = written(model, inputs=["x"])
    assert kinds(made) == ["Add", "Cast"] and not made.functions


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-1e9, "more than float16 has"), (1e-6, "few digits"), ([1.0, 1e-7], ""), (-np.inf, ""), (0.0, ""), (65504.0, "")],
)
def test_what_float16_cannot_hold_keeps_its_reader_wide(value: Any, reason: str) -> None:
    """A mask of -1e9 would become minus infinity, an epsilon zero. A small number among large ones may be lost."""
    net = Net()
    net.store("k", np.resize(value, 6))
    net.add("Relu", "x", out="r")
    net.add("Add", "r", "k", out="y")
    found = forced(prepared(net.model()))
    assert (reason in found["n_y"]) if reason else found == {}
    made = written(net.model(), inputs=["x"])
    assert types(made)["k"] == (WIDE if reason else HALF)


def test_each_scale_of_quantised_weights_has_to_fit() -> None:
    """A channel whose scale becomes zero is lost, however small its share of the norm."""
    net = Net()
    net.store("w", np.ones((2, 4, 1, 1)), np.int8)
    net.store("s", [0.02, 1e-7])
    net.store("z", [0, 0], np.int8)
    net.add("DequantizeLinear", "w", "s", "z", out="d", axis=0)
    net.add("Conv", "x", "d", out="y")
    assert list(forced(prepared(net.model()))) == ["n_d"]


def test_a_damaged_graph_is_refused() -> None:
    net = Net()
    net.store("w", [1, 2], np.int64)
    net.add("Add", "x", "w", out="y")
    with pytest.raises(UsageError, match="cannot be written in float16"):
        prepared(net.model())


# Searched


def search(model: Any, inputs: list[Values] | None = None, **settings: Any) -> HalfSearch:
    some = feed() if inputs is None else inputs
    return HalfSearch(model, inputs=["x"], feed=some, judge=Judge(run_exactly(model, some)), **settings)


def test_a_sound_net_is_float16_throughout() -> None:
    lines: list[str] = []
    found = search(conv_net().model(), say=lines.append).run()
    assert found.record["wide"] == {} and found.record["put_back"] == [] and found.record["operators"] == 2
    assert found.figures.worst_sqnr_db > 55 and len(lines) == 1


def test_what_was_seen_beyond_float16_stays_wide() -> None:
    """A sum that overflows, of stored tensors that all fit."""
    net = conv_net("r")
    net.store("large", 3e4)
    net.store("back", 1e-4)
    net.add("Mul", "r", "large", out="m")
    net.add("Mul", "m", "back", out="y")
    model = net.model()
    assert largest(model, feed(), ["m"])["m"] > 65504
    assert not np.isfinite(run_exactly(written(model, inputs=["x"]), feed())[0]["y"]).all()
    found = search(model).run()
    assert set(found.record["wide"]) == {"n_m", "n_y"} and "was seen at" in found.record["wide"]["n_m"]
    assert found.figures.worst_sqnr_db > 55
    assert largest(model, feed(), ["r"])["r"] < 100


def cancelling() -> Any:
    """Two nodes make large numbers whose difference is small: the difference shows what they lost."""
    net = conv_net("r")
    net.store("far", 1000.0)
    net.add("Add", "r", "far", out="up")
    net.add("Sub", "up", "far", out="down")
    net.add("Relu", "down", out="s")
    net.add("Sigmoid", "s", out="y")
    return net.model()


def test_the_operators_that_lose_digits_are_found_and_put_back() -> None:
    model = cancelling()
    seeking = search(model)
    assert over(seeking.measure(), HALF_BUDGET)
    found = seeking.run()
    assert {"n_up", "n_down"} <= set(found.record["put_back"]) and len(found.record["put_back"]) <= 3
    assert not over(found.figures, HALF_BUDGET)
    assert found.record["steps"][0]["over_budget"] and not found.record["steps"][-1]["over_budget"]
    assert {one["operator"] for one in found.record["ranking"][:2]} == {"n_up", "n_down"}


def test_a_budget_that_cannot_hold_is_said() -> None:
    with pytest.raises(BudgetError, match="3 of 6 operators"):
        search(cancelling()).run(Budget(sqnr_db=180))
    with pytest.raises(UsageError, match="nothing to measure"):
        HalfSearch(cancelling(), inputs=["x"], feed=[], judge=Judge([{"y": np.zeros(1, np.float32)}]))


def test_every_outputs_noise_counts_where_there_is_a_head() -> None:
    """And what is no number is over every budget."""
    head = Head(name="h", kind="hierarchical-binary", output="y", rules=(LabelRule(label="any"),))
    reference = [{"y": np.array([[2.0]], np.float32), "map": np.ones((1, 4), np.float32)}]
    noisy = [{"y": np.array([[2.001]], np.float32), "map": np.full((1, 4), 1.1, np.float32)}]
    judge = Judge(reference, head=head)
    assert over(judge.figures(reference), HALF_BUDGET) == []
    assert over(judge.figures(noisy), HALF_BUDGET) == ["an output has 20.0 dB, less than 40.0"]
    assert over(judge.figures([{**noisy[0], "map": noisy[0]["map"] * np.nan}]), HALF_BUDGET)


def test_a_variant_of_an_int8_graph_may_be_hardly_noisier() -> None:
    figures = Figures(studies=4, worst_sqnr_db=24.0, sqnr_db={}, worst_study_db=20.0, worst_shift=0.02, flip_rate=0.0)
    budget = budget_beside(figures, Budget())
    assert budget.sqnr_db == 21.0 and budget.shift == Budget().shift


def test_the_stage_writes_a_graph_and_a_record(tmp_path: Path) -> None:
    source, out = tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"
    onnx.save(finished(conv_net().model(), system="t")[0], source)
    model = onnx.load(source)
    settings: dict[str, Any] = {
        "form": "float16", "inputs": ["x"], "feed": feed(), "judge": Judge(run_exactly(model, feed())),
        "draw": declared(model), "system": "t",
    }  # fmt: skip
    record = write_half(source, out, **settings)
    data = out.read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest() and record["bytes"] == len(data)
    assert record["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["interface"]["inputs"]["x"]["type"] == "float16"
    assert record["interface"]["outputs"]["y"]["type"] == "float"
    assert record["batches"]["y"]["sqnr_db"] > 50
    out.unlink()
    with pytest.raises(BudgetError):
        write_half(source, out, **settings, budget=Budget(sqnr_db=180))
    assert not out.exists()


@pytest.fixture
def theirs(tmp_path: Path) -> dict[str, Any]:
    """What ``edgehem export`` is given of somebody's network: [N, 4, 1, 6, 6] to two logits."""
    net = Net()
    net.inputs = [helper.make_tensor_value_info("x", FLOAT, ["batch", 4, 1, 6, 6])]
    net.store("axes", [2, 3, 4], np.int64)
    net.store("w", np.random.default_rng(2).normal(size=(4, 2)))
    net.add("ReduceMean", "x", "axes", out="m", keepdims=0)
    net.add("MatMul", "m", "w", out="scores")
    source, interface = tmp_path / "theirs.onnx", tmp_path / "interface.json"
    model = net.model("scores")
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", FLOAT, ["batch", 2]))
    onnx.save(model, source)
    described = {
        "system": "theirs", "inputs": {"image": "x"}, "outputs": ["scores"], "head": "scores", "labels": ["any", "one"],
        "preprocess": {"shape": [4, 6, 6], "spacing_mm": [30, 30, 30], "windows": [[40, 80]]},
    }  # fmt: skip
    interface.write_text(json.dumps(described), encoding="utf-8")
    return {"source": source, "interface": interface, "trained_on": "patients"}


def test_a_bundle_has_a_float16_graph_unless_it_is_left_out(theirs: dict[str, Any], tmp_path: Path) -> None:
    commands.export(**theirs, out=tmp_path / "bundle")
    commands.export(**theirs, out=tmp_path / "again")
    commands.export(**theirs, out=tmp_path / "without", half=False)
    bundle = Bundle(tmp_path / "bundle")
    bundle.verify()
    assert [(graph.precision, graph.form) for graph in bundle.manifest.graphs] == [
        ("fp32", "float"),
        ("fp16", "float16"),
    ]
    assert bundle.graph("fp16").sha256 == Bundle(tmp_path / "again").graph("fp16").sha256
    assert set(bundle.manifest.provenance["tensorrt"]["graphs"]) == {"fp32.onnx", "fp16.onnx"}
    record = json.loads((bundle.folder / "records/fp16.json").read_text(encoding="utf-8"))
    assert record["sha256"] == bundle.graph("fp16").sha256 and record["budget"]["sqnr_db"] == 40
    without = Bundle(tmp_path / "without")
    assert [graph.precision for graph in without.manifest.graphs] == ["fp32"]
    assert not (without.folder / "records/fp16.json").exists()


def test_a_float16_graph_that_leaves_its_budget_is_left_out_and_the_record_says_why(
    theirs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BudgetError("float16 leaves its budget")

    monkeypatch.setattr(commands, "write_half", fail)
    commands.export(**theirs, out=tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    bundle.verify()
    assert [graph.precision for graph in bundle.manifest.graphs] == ["fp32"]
    record = json.loads((bundle.folder / "records/fp16.json").read_text(encoding="utf-8"))
    assert record == {"form": "float16", "left_out": "float16 leaves its budget"}
    assert "no fp16.onnx: float16 leaves its budget" in capsys.readouterr().err


@pytest.fixture(scope="module")
def image() -> list[Values]:
    """A head would not say more about types; it takes a second either way."""
    rng = np.random.default_rng(3)
    valid = np.ones((1, 40), np.float32)
    valid[:, :6] = 0
    return [{"image": rng.random((1, 40, 3, 224, 224), np.float32), "valid": valid}]


@pytest.mark.parametrize(("file", "least_db"), [("fp32.onnx", 43), ("int8.onnx", 20)])
def test_the_shipped_graphs_in_float16(file: str, least_db: float, image: list[Values]) -> None:
    """Ready for TensorRT, no larger than needed, and near what they come from."""
    path = find("hemorrhagenet").folder / file
    source = onnx.load(path)
    made, data = finished(halved(prepared(source), inputs=["image"]), system="hemorrhagenet")
    report = lint(made)
    assert report.ready and not report.warnings, report.text()
    known = types(made)
    assert known["image"] == HALF and known["valid"] == WIDE
    assert all(known[value.name] == WIDE for value in made.graph.output)
    floats = [name for name, kind in known.items() if kind == WIDE]
    assert set(floats) == {"valid", *(value.name for value in made.graph.output)}
    share = 0.55 if file == "fp32.onnx" else 0.85
    assert len(data) < share * path.stat().st_size
    judge = Judge(run_exactly(source, image))
    assert judge.figures(run_exactly(made, image)).worst_sqnr_db > least_db


def test_the_same_graph_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    """Whatever the seed of hashing; a set whose order got into the file would show."""
    code = (
        "import hashlib, sys, onnx\n"
        "from edgehem.export.graph import finished\n"
        "from edgehem.export.half import halved, prepared\n"
        "model = prepared(onnx.load(sys.argv[1]))\n"
        "data = finished(halved(model, inputs=['image'], wide=['node_softmax', 'node_conv2d']), system='s')[1]\n"
        "print(hashlib.sha256(data).hexdigest())\n"
    )
    path = find("hemorrhagenet").folder / "int8.onnx"
    elsewhere = tmp_path / "elsewhere.onnx"
    elsewhere.write_bytes(path.read_bytes())
    said = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(place)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        ).stdout
        for place, seed in ((path, "1"), (elsewhere, "2"))
    }
    assert len(said) == 1


def test_the_budget_of_float16_is_a_tenth_of_int8s() -> None:
    assert HALF_BUDGET.shift == pytest.approx(Budget().shift / 10)
