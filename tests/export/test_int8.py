"""INT8 by measurement, on small graphs whose right answer is known. Needs the [export] extra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgehem.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from edgehem.bundle import Head, LabelRule  # noqa: E402
from edgehem.errors import BudgetError, UsageError  # noqa: E402
from edgehem.export.deviation import MOST_DB, sqnr_db  # noqa: E402
from edgehem.export.graph import named  # noqa: E402
from edgehem.export.int8.adjust import bias_corrections, equalised, picked_first  # noqa: E402
from edgehem.export.int8.judge import Budget, Judge  # noqa: E402
from edgehem.export.int8.places import Wiring  # noqa: E402
from edgehem.export.int8.qdq import plan, quantised, quantised_weight, watched  # noqa: E402
from edgehem.export.int8.ranges import METHODS, Seen, merged, observe, threshold  # noqa: E402
from edgehem.export.int8.search import PLAIN, RECIPES, Recipe, Search, run_all  # noqa: E402

Feed = list[dict[str, npt.NDArray[np.float32]]]


class Net:
    """Builds a small graph layer by layer."""

    def __init__(self, channels: int = 4, size: int = 12, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, size, size])

    def store(self, name: str, value: Any) -> str:
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def conv(self, source: str, name: str, c_in: int, c_out: int, *, relu: bool = True, weight: Any = None) -> str:
        if weight is None:
            weight = self.rng.normal(0, 1 / np.sqrt(9 * c_in), (c_out, c_in, 3, 3))
        w = self.store(f"{name}_w", np.asarray(weight, np.float32))
        b = self.store(f"{name}_b", self.rng.normal(0, 0.05, c_out).astype(np.float32))
        made = self.add("Conv", source, w, b, name=name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return self.add("Relu", made, name=f"{name}_relu") if relu else made

    def logits(self, source: str, c_in: int) -> Any:
        """Pool, multiply, and close the graph with an output of one logit."""
        self.add("GlobalAveragePool", source, name="pooled")
        self.add("Flatten", "pooled", name="flat")
        w = self.store("fc_w", self.rng.normal(0, 2, (c_in, 1)).astype(np.float32))
        self.add("MatMul", "flat", w, name="logits")
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])
        graph = helper.make_graph(self.nodes, "net", [self.input], [output], self.stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def plain_net(seed: int = 0) -> Any:
    """Five convolutions with a shortcut, a pool and a concatenation."""
    net = Net(seed=seed)
    a = net.conv("x", "first", 4, 8)
    b = net.conv(a, "second", 8, 8)
    c = net.conv(b, "third", 8, 8, relu=False)
    joined = net.add("Relu", net.add("Add", a, c, name="sum"), name="joined")
    pooled = net.add("MaxPool", joined, name="maxed", kernel_shape=[2, 2], strides=[2, 2])
    half = net.conv(pooled, "fourth", 8, 8)
    both = net.add("Concat", pooled, half, name="both", axis=1)
    return net.logits(net.conv(both, "fifth", 16, 8), 8)


def images(count: int, seed: int = 1, *, channels: int = 4, size: int = 12) -> Feed:
    """Noise of many strengths, so that answers differ."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0.1, 2, count).astype(np.float32)
    return [{"x": level * rng.random((1, channels, size, size), np.float32)} for level in levels]


def searching(model: Any, *, head: Head | None = None, labels: Any = None, **options: Any) -> Search:
    selection = images(24, seed=2)
    judge = Judge(run_all(model, selection), head=head, labels=labels)
    return Search(model, calibration=images(12), selection=selection, judge=judge, **options)


HEAD = Head(name="h", kind="hierarchical-binary", output="logits", rules=(LabelRule(label="any"),))


# Where


def test_layers_and_what_they_read() -> None:
    wiring = Wiring(plain_net())
    assert wiring.layers() == ["n_first", "n_second", "n_third", "n_fourth", "n_fifth"]
    assert wiring.layers(("Conv", "MatMul"))[-1] == "n_logits"
    assert wiring.first() == {"n_first"}
    assert wiring.last() == {"n_logits"}
    spans = {span.layers: span for span in wiring.spans(["n_second", "n_third", "n_fourth", "n_fifth"])}
    assert spans["n_second",].sources == ("first_relu",)
    # The pool and the concatenation only move values: what passes them shares a scale.
    moved = spans["n_fourth", "n_fifth"]
    assert set(moved.sources) == {"joined", "fourth_relu"}
    assert [wiring.nodes[index].op_type for index in moved.moved] == ["MaxPool", "Concat"]
    assert all(span.not_negative for span in spans.values())
    assert wiring.joins(["n_third", "n_fourth"]) == [("first_relu", 5)]
    assert wiring.joins(["n_third"]) == []  # nothing quantised comes after it


def test_work_is_shared_out_by_multiplications() -> None:
    work = Wiring(plain_net()).work()
    assert sum(work.values()) == pytest.approx(1)
    assert work["n_second"] == pytest.approx(work["n_third"]) == pytest.approx(4 * work["n_fourth"])
    assert work["n_logits"] < 0.001


def test_nodes_get_names_of_their_own() -> None:
    model = plain_net()
    for node in model.graph.node:
        node.name = "same"
    with pytest.raises(ValueError, match="name"):
        Wiring(model)
    named(model)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert model.graph.node[0].name == "same"
    Wiring(model)


def test_the_shipped_graph_keeps_first_layer_maps_and_attention_in_float() -> None:
    from importlib.resources import files

    model = onnx.load_from_string((files("edgehem.bundles") / "hemorrhagenet/fp32.onnx").read_bytes())
    left = Search(model, calibration=[{}], selection=[{}], judge=Judge([{"logits": np.zeros((1, 6), np.float32)}])).left
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    weights = {node.name: sizes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}
    kept = [weights[name] for name in left]
    assert len(kept) == 6
    assert [12, 3, 3, 3] in kept and [16, 96, 1, 1] in kept and [64, 64, 3] in kept


# From which ranges


def test_a_range_grows_with_what_comes() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, sigma, (2, 3, 5)).astype(np.float32) for sigma in (0.1, 3, 40, 0.5)]
    seen = Seen()
    for part in parts:
        seen.add(part)
    everything = np.abs(np.concatenate([part.reshape(-1) for part in parts]))
    assert seen.counts.sum() == everything.size
    assert seen.largest == everything.max() <= seen.top
    edges = np.linspace(0, seen.top, len(seen.counts) + 1)
    direct = np.histogram(everything, edges)[0]
    assert np.abs(np.cumsum(seen.counts) - np.cumsum(direct)).max() <= 1  # one on an edge
    assert seen.channel_mean == pytest.approx(np.mean([part.mean(axis=(0, 2)) for part in parts], axis=0), abs=1e-5)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [("normal", 3.0, 6.0), ("uniform", 0.98, 1.0), ("one outlier", 3.0, 20.0)],
)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "minmax"])
def test_where_a_range_is_cut(method: str, values: str, low: float, high: float) -> None:
    rng = np.random.default_rng(3)
    drawn = {
        "normal": rng.standard_normal(500_000),
        "uniform": rng.random(500_000),
        "one outlier": np.append(rng.standard_normal(500_000), 60.0),
    }[values]
    seen = Seen()
    seen.add(drawn.astype(np.float32))
    assert low <= threshold(seen, method) <= high
    assert threshold(seen, "minmax") == pytest.approx(np.abs(drawn).max(), rel=1e-6)


def test_entropy_is_not_minmax_in_disguise() -> None:
    seen = Seen()
    drawn = np.random.default_rng(4).standard_normal(500_000)
    drawn[:5] *= 30
    seen.add(drawn.astype(np.float32))
    assert threshold(seen, "entropy") < 0.5 * seen.largest


def test_shared_ranges_hold_all_of_their_tensors() -> None:
    small, large = Seen(), Seen()
    small.add(np.full(100, 0.3, np.float32))
    large.add(np.full(10, 7.0, np.float32))
    both = merged([small, large])
    assert both.counts.sum() == 110
    assert threshold(both, "minmax") == 7.0
    assert threshold(Seen(), "minmax") > 0  # nothing but zeros


def test_ranges_need_data_and_numbers() -> None:
    model = plain_net()
    with pytest.raises(UsageError, match="calibration data"):
        observe(model, [], ["first_relu"])
    with pytest.raises(UsageError, match="not a number"):
        observe(model, [{"x": np.full((1, 4, 12, 12), np.nan, np.float32)}], ["first_relu"])


# Quantised


def exactly(model: Any, inputs: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The output without any optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def rounded(values: npt.NDArray[Any], scale: float) -> npt.NDArray[np.float32]:
    return (np.clip(np.rint(values / np.float32(scale)), -128, 127) * np.float32(scale)).astype(np.float32)


def test_one_layer_is_rounded_as_the_formula_says() -> None:
    """Against NumPy: activation per tensor, weight per output channel, bias untouched."""
    from scipy.signal import correlate

    net = Net(channels=2, size=8)
    net.conv("x", "only", 2, 3, relu=False)
    output = helper.make_tensor_value_info("only", TensorProto.FLOAT, ["n", 3, 8, 8])
    model = helper.make_model(
        helper.make_graph(net.nodes, "g", [net.input], [output], net.stored),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=9,
    )  # fmt: skip
    wiring = Wiring(model)
    feed = images(3, channels=2, size=8)
    seen = observe(model, feed, watched(wiring, ["n_only"]))
    chosen = plan(wiring, seen, ["n_only"], method="minmax", percentile=99.99, through=True, joins=False)
    got = exactly(quantised(wiring, chosen), feed[0])[0]
    weight, bias = (numpy_helper.to_array(tensor) for tensor in net.stored)
    whole, scale = quantised_weight(weight, 0)
    assert whole.dtype == np.int8 and np.abs(whole).max() == 127
    x = rounded(feed[0]["x"][0], chosen.scales[0])
    w = whole * scale.reshape(-1, 1, 1, 1)
    expected = np.stack([
        sum(correlate(x[i], w[o, i], mode="same") for i in range(2)) + bias[o] for o in range(3)
    ])  # fmt: skip
    assert np.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("through", [False, True])
def test_both_forms_agree_and_stay_near_float(through: bool, joins: bool) -> None:
    model = plain_net()
    search = searching(model)
    recipe = Recipe(method="minmax", through=through, joins=joins)
    signed, unsigned = (search.build(recipe, search.layers, unsigned=u) for u in (False, True))
    for inputs in images(4, seed=9):
        float_ = exactly(model, inputs)
        int8, uint8 = exactly(signed, inputs), exactly(unsigned, inputs)
        assert np.allclose(int8, uint8, atol=0.02 * np.abs(float_).max())
        assert sqnr_db([float_], [int8]) > 20
    onnx.checker.check_model(signed, full_check=True)
    kinds = {node.op_type for node in signed.graph.node}
    assert "DequantizeLinear" in kinds and "QLinearConv" not in kinds
    zeros = {
        tensor.data_type for tensor in signed.graph.initializer
        if tensor.name in {node.input[2] for node in signed.graph.node if node.op_type == "QuantizeLinear"}
    }  # fmt: skip
    assert zeros == {TensorProto.INT8}


def test_a_float_layer_reads_what_was_not_rounded() -> None:
    """The first convolution's output feeds a quantised layer and the shortcut: only the first sees int8."""
    search = searching(plain_net())
    recipe = Recipe(method="minmax", joins=False)
    graph = search.build(recipe, ["n_second"])
    add = next(node for node in graph.graph.node if node.op_type == "Add")
    assert "first_relu" in add.input


def test_weights_take_a_quarter_of_the_room() -> None:
    search = searching(plain_net())
    stored = {tensor.name: tensor.data_type for tensor in search.build(PLAIN, search.layers).graph.initializer}
    assert stored["second_w_int8"] == TensorProto.INT8
    assert "second_w" not in stored and "first_w" in stored


# Adjusted


def test_equalising_changes_no_answer_and_helps_uneven_channels() -> None:
    model = plain_net()
    for tensor in model.graph.initializer:  # the second layer's channels differ by a factor of 1000
        if tensor.name in ("second_w", "second_b"):
            value = numpy_helper.to_array(tensor).copy()
            value *= np.logspace(0, 3, len(value), dtype=np.float32).reshape(-1, *[1] * (value.ndim - 1))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        if tensor.name == "third_w":
            value = numpy_helper.to_array(tensor) / np.logspace(0, 3, 8, dtype=np.float32).reshape(1, -1, 1, 1)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    search = searching(model)
    _, seen, _ = search._prepared(equalise=False)
    changed, names = equalised(search.wiring, seen, search.layers)
    assert names == ["n_third"]
    for inputs in images(3, seed=5):
        assert np.allclose(exactly(model, inputs), exactly(changed, inputs), rtol=1e-4, atol=1e-5)
    plain = search.measure(PLAIN, search.layers)
    even = search.measure(Recipe(method="minmax", equalise=True, correct_biases=False), search.layers)
    assert even.worst_sqnr_db > plain.worst_sqnr_db + 3


def test_bias_correction_takes_the_mean_of_the_rounding_away() -> None:
    """Weights of one sign below half a step are lost in rounding; their mean comes back through the bias."""
    net = Net(channels=4)
    weight = np.full((4, 4, 3, 3), 0.3 / 127, np.float32)
    weight[:, 0, 1, 1] = 1.0
    net.conv("x", "first", 4, 4)
    net.conv("first_relu", "second", 4, 4, relu=False, weight=weight)
    model = net.logits("second", 4)
    wiring = Wiring(model)
    feed = images(6)
    seen = observe(model, feed, watched(wiring, ["n_second"]))
    correction = bias_corrections(wiring, seen, ["n_second"])["n_second"]
    assert (correction > 0).all()
    lost = (0.3 / 127) * seen["first_relu"].channel_mean.sum() * 9 - (0.3 / 127) * seen["first_relu"].channel_mean[0]
    assert correction == pytest.approx(np.full(4, lost), rel=0.02)


def test_pointwise_strides_are_picked_first_and_once() -> None:
    """Exactly the same values: a pool of one value moves them and computes nothing."""
    net = Net(size=12)
    a = net.conv("x", "first", 4, 8)
    for name in ("left", "right"):
        w = net.store(f"{name}_w", net.rng.normal(0, 1, (8, 8, 1, 1)).astype(np.float32))
        net.add("Conv", a, w, name=name, kernel_shape=[1, 1], strides=[2, 2])
    net.add("Relu", net.add("Add", "left", "right", name="sum"), name="joined")
    model = net.logits(net.conv("joined", "last", 8, 8), 8)
    changed = picked_first(model)
    pools = [node for node in changed.graph.node if node.op_type == "MaxPool"]
    assert len(pools) == 1
    onnx.checker.check_model(changed, full_check=True)
    for inputs in images(3):
        assert np.array_equal(exactly(model, inputs), exactly(changed, inputs))
    assert picked_first(plain_net()).SerializeToString() == plain_net().SerializeToString()


# Judged


def test_figures_of_known_outputs() -> None:
    logits = [{"logits": np.array([[z]], np.float32)} for z in (-4, -2, -0.1, 0.1, 2, 4)]
    labels = np.array([0, 0, 0, 1, 1, 1])
    judge = Judge(logits, head=HEAD, labels=labels)
    same = judge.figures(logits)
    assert (same.flips, same.worst_shift, same.worst_sqnr_db) == (0, 0, MOST_DB)
    assert same.over(Budget()) == []
    turned = [dict(one) for one in logits]
    turned[3] = {"logits": np.array([[-0.2]], np.float32)}
    found = judge.figures(turned)
    assert (found.flips, found.auc_fp32, found.sensitivity_fp32) == (1, 1.0, 1.0)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.auc == pytest.approx(8 / 9)
    assert found.worst_shift == pytest.approx(1 / (1 + np.exp(-0.1)) - 1 / (1 + np.exp(0.2)), abs=1e-6)
    assert found.auc_drop is not None and found.auc_drop[1] <= found.auc_drop[0] <= found.auc_drop[2]
    assert len(found.over(Budget())) == 2  # AUC and flips; the shift is small
    broken = [{"logits": np.array([[np.nan]], np.float32)}] * 6
    assert judge.figures(broken).worst_sqnr_db == -MOST_DB


def test_without_a_head_numbers_are_judged() -> None:
    reference = [{"y": np.arange(8, dtype=np.float32)[None]}] * 2
    judge = Judge(reference)
    noisy = [{"y": reference[0]["y"] + 0.1}, {"y": reference[0]["y"] + 1}]
    found = judge.figures(noisy)
    assert found.flips is None
    assert found.worst_study_db < found.worst_sqnr_db < 20
    assert found.over(Budget(sqnr_db=40)) and not found.over(Budget(sqnr_db=5))


# Searched


def planted(seed: int = 0) -> Any:
    """A net in which one pixel of one layer is hundreds of times as large as all others, and is then taken away again.

    No scale serves both, and no channel can be equalised, for the outlier lies inside of one.
    """
    net = Net(seed=seed)
    spike = np.zeros((1, 8, 12, 12), np.float32)
    spike[0, 3, 0, 0] = 900.0
    a = net.conv("x", "first", 4, 8)
    b = net.conv(a, "second", 8, 8)
    up = net.add("Add", b, net.store("spike", spike), name="spiked")
    weight = np.zeros((8, 8, 3, 3), np.float32)
    weight[np.arange(8), np.arange(8), 1, 1] = 1.0
    c = net.conv(up, "third", 8, 8, relu=False, weight=weight)
    down = net.add("Relu", net.add("Sub", c, "spike", name="level"), name="down")
    d = net.conv(down, "fourth", 8, 8)
    e = net.conv(d, "fifth", 8, 8)
    return net.logits(net.conv(e, "sixth", 8, 8), 8)


def judged_by_decisions(model: Any, selection: Feed) -> Judge:
    """A head whose operating point lies in the middle of the outputs, and labels that follow them."""
    reference = run_all(model, selection)
    values = np.array([float(one["logits"][0, 0]) for one in reference])
    scale = 2 / values.std()
    rule = LabelRule(label="any", scale=float(scale), offset=float(-scale * np.median(values)))
    head = Head(name="h", kind="hierarchical-binary", output="logits", rules=(rule,))
    return Judge(reference, head=head, labels=(values > np.median(values)).astype(int))


@pytest.mark.parametrize("seed", [0, 4, 5])  # random nets whose answers depend on their input
def test_a_planted_outlier_breaks_plain_quantisation_and_few_layers_bring_it_back(seed: int) -> None:
    model = planted(seed)
    selection = images(24, seed=2)
    judge = judged_by_decisions(model, selection)
    search = Search(model, calibration=images(12), selection=selection, judge=judge)
    budget = Budget(flips=0.05)
    assert search.measure(PLAIN, search.layers).over(budget)
    found = search.run((PLAIN,), budget)
    assert not found.figures.over(budget)
    reverted = found.record["layers"]["reverted"]
    assert "n_third" in reverted
    assert len(reverted) <= 2
    assert found.record["ranking"][0]["layer"] == "n_third"
    assert found.record["steps"][0]["reverted"] == []


def test_a_sound_net_keeps_all_layers_and_tells_what_was_tried() -> None:
    lines: list[str] = []
    model = plain_net()
    selection = images(24, seed=2)
    search = Search(
        model, calibration=images(12), selection=selection, judge=judged_by_decisions(model, selection),
        say=lines.append,
    )  # fmt: skip
    found = search.run(RECIPES[:3], Budget(flips=0.1))
    assert found.record["layers"] == {
        "quantised": ["n_second", "n_third", "n_fourth", "n_fifth"], "kept_float": ["n_first"], "reverted": [],
    }  # fmt: skip
    assert len(found.record["screened"]) == 3 and len(lines) == 4
    assert set(found.record["layer_sqnr_db"]) == set(search.layers)
    assert min(found.record["layer_sqnr_db"].values()) > 20
    again = Search(
        model, calibration=images(12), selection=selection, judge=judged_by_decisions(model, selection)
    ).run(RECIPES[:3], Budget(flips=0.1))  # fmt: skip
    assert again.model.SerializeToString(deterministic=True) == found.model.SerializeToString(deterministic=True)


def test_a_budget_that_cannot_hold_is_said() -> None:
    with pytest.raises(BudgetError, match="2 of 4 layers"):
        searching(plain_net()).run((PLAIN,), Budget(sqnr_db=100))


def test_nothing_to_quantise_is_said() -> None:
    net = Net()
    model = net.logits("x", 4)
    with pytest.raises(UsageError, match="no Conv"):
        searching(model)


def test_dense_layers_are_quantised_when_asked_for() -> None:
    search = searching(plain_net(), kinds=("Conv", "MatMul"), keep_float=())
    assert "n_logits" in search.layers and "n_first" in search.layers
    figures = search.measure(PLAIN, search.layers)
    assert figures.worst_sqnr_db > 15


def batches(values: Sequence[dict[str, Any]]) -> int:
    return sum(len(one["x"]) for one in values)


def test_ranges_do_not_depend_on_how_studies_are_batched() -> None:
    model = plain_net()
    single = images(6)
    together = [{"x": np.concatenate([one["x"] for one in single])}]
    assert batches(single) == batches(together)
    one, many = (observe(model, feed, ["second_relu"])["second_relu"] for feed in (single, together))
    assert one.largest == pytest.approx(many.largest, rel=1e-5)
    assert one.channel_mean == pytest.approx(many.channel_mean, rel=1e-4)
    assert OnnxRuntimeSession(model.SerializeToString()).run(together[0])["logits"].shape == (6, 1)
