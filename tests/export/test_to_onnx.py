"""Any network to ONNX: folded, exported, cleaned, reproducible, and held against torch and against itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

import onnx  # noqa: E402
from onnx import TensorProto, external_data_helper, helper, numpy_helper  # noqa: E402
from torch import nn  # noqa: E402

import edgehem  # noqa: E402
from edgehem.backends.onnxruntime import OnnxRuntime  # noqa: E402
from edgehem.bundle import find  # noqa: E402
from edgehem.errors import BudgetError, UsageError  # noqa: E402
from edgehem.export import parity  # noqa: E402
from edgehem.export.graph import interface, take_onnx  # noqa: E402
from edgehem.export.interface import HEMORRHAGENET  # noqa: E402
from edgehem.export.parity import FLOAT, INT8, Agreement, Budget, across_batches, between_optimisations  # noqa: E402
from edgehem.export.readiness import lint  # noqa: E402
from edgehem.export.to_onnx import export_onnx, fuse_batch_norms  # noqa: E402


class Triage(nn.Module):
    """An image and a table, two heads: plain, transposed and attribute-style blocks, none in HemorrhageNet's form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Dropout(0.5), nn.BatchNorm2d(4), nn.ReLU())
        self.table = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Any, table: Any) -> Any:
        x = self.up(torch.relu(self.bn(self.conv(image))))
        pooled = x.mean((2, 3)) + torch.relu(self.table(table))
        return {"logits": self.head(pooled), "map": torch.sigmoid(x[:, :1])}


EXAMPLES = {"image": torch.rand(1, 2, 12, 12), "table": torch.rand(1, 5)}
OUTPUTS = ("logits", "map")


def stirred(model: nn.Module) -> nn.Module:
    """With statistics that make folding matter."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], nn.Module]:
    torch.manual_seed(1)
    model = stirred(Triage())
    out = tmp_path_factory.mktemp("a") / "net.onnx"
    return out, export_onnx(model, EXAMPLES, out, outputs=OUTPUTS, system="triage"), model


def test_any_network_is_exported_and_says_what_it_is(exported: tuple[Path, dict[str, Any], nn.Module]) -> None:
    out, record, model = exported
    data = out.read_bytes()
    graph = onnx.load_from_string(data)
    onnx.checker.check_model(graph, full_check=True)
    assert record["sha256"] == hashlib.sha256(data).hexdigest() and record["opset"] == 18
    assert (
        record["interface"]
        == interface(graph)
        == {
            "inputs": {
                "image": {"type": "float", "shape": ["batch", 2, 12, 12]},
                "table": {"type": "float", "shape": ["batch", 5]},
            },
            "outputs": {
                "logits": {"type": "float", "shape": ["batch", 3]},
                "map": {"type": "float", "shape": ["batch", 1, 24, 24]},
            },
        }
    )
    marks = {item.key: item.value for item in graph.metadata_props}
    assert marks["edgehem.version"] == edgehem.__version__ and marks["edgehem.system"] == "triage"
    assert json.loads(marks["edgehem.interface"]) == record["interface"]
    assert b".py" not in data and b"site-packages" not in data and str(Path.home()).encode() not in data
    assert all(node.name for node in graph.graph.node) and lint(graph).ready
    assert record["left_batch_norms"] == 0 and record["folded_batch_norms"] == 1  # the exporter folds the other
    assert max(record["parity"].values()) < 1e-5 and record["batches"] == [1, 2, 5]
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the caller's network was changed"
    json.dumps(record)


AGAIN = """
import sys
sys.path.insert(0, {folder!r})
import torch
from pathlib import Path
from test_to_onnx import EXAMPLES, OUTPUTS, Triage, export_onnx, stirred
torch.manual_seed(1)
model = stirred(Triage())
torch.manual_seed(99)
print(export_onnx(model, EXAMPLES, Path({out!r}), outputs=OUTPUTS, system="triage")["sha256"])
"""


def test_same_weights_same_bytes_elsewhere_and_in_another_process(
    exported: tuple[Path, dict[str, Any], nn.Module], tmp_path: Path
) -> None:
    """The script lies elsewhere, runs elsewhere, writes elsewhere, and orders its sets in another way."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    script = tmp_path / "deep" / "again.py"
    script.write_text(AGAIN.format(folder=str(Path(__file__).parent), out=str(tmp_path / "deep" / "er" / "other.onnx")))
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == exported[1]["sha256"]


def test_other_weights_other_bytes_and_the_same_names(
    exported: tuple[Path, dict[str, Any], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(2)
    record = export_onnx(stirred(Triage()), EXAMPLES, tmp_path / "b.onnx", outputs=OUTPUTS, system="triage")
    assert record["sha256"] != exported[1]["sha256"]
    first, second = (onnx.load(path).graph for path in (exported[0], tmp_path / "b.onnx"))
    assert [node.name for node in first.node] == [node.name for node in second.node]


class Branch(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "outputs", "said"),
    [
        (Branch(), ["y"], "cannot export the network with a dynamic batch"),
        (Triage(), ["y"], "fails on the examples"),
        (nn.Linear(4, 2), ["y", "z"], "returns 1 tensors; named were y, z"),
        (nn.LSTM(4, 2), ["y"], "returns 3 tensors"),
    ],
)
def test_what_cannot_be_exported_is_said_in_words(model: Any, outputs: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        export_onnx(model, {"x": torch.rand(2, 4)}, tmp_path / "x.onnx", outputs=outputs, system="s")
    with pytest.raises(UsageError, match="no batch axis"):
        export_onnx(nn.Identity(), {"x": torch.tensor(1.0)}, tmp_path / "x.onnx", outputs=["y"], system="s")
    assert not (tmp_path / "x.onnx").exists()


class Idle(nn.Module):
    def forward(self, x: Any, unused: Any) -> Any:
        return torch.relu(x)


def test_an_input_that_is_not_used_is_kept_or_named(tmp_path: Path) -> None:
    examples = {"x": torch.rand(2, 4) - 0.5, "unused": torch.rand(2, 3)}
    try:
        record = export_onnx(Idle(), examples, tmp_path / "x.onnx", outputs=["y"], system="s")
    except UsageError as error:
        assert "does not use its input unused" in str(error)
    else:
        assert set(record["interface"]["inputs"]) == {"x", "unused"}


def test_outputs_of_a_dict_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="returns logits, map; named were map, logits"):
        export_onnx(Triage(), EXAMPLES, tmp_path / "x.onnx", outputs=["map", "logits"], system="s")


def blocks() -> list[tuple[nn.Module, tuple[int, ...], int]]:
    """Modules with BatchNorms, an input, how many can be folded."""
    shared = nn.Conv2d(3, 3, 1)
    hooked = nn.Conv2d(3, 4, 3)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    tied = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), nn.Conv2d(3, 3, 1))
    tied[1].weight = tied[0][0].weight

    class Reversed(nn.Sequential):
        def forward(self, x: Any) -> Any:
            return self[0](self[1](x))

    return [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (3, 9), 1),
        (nn.Sequential(nn.Conv3d(3, 4, 3, bias=False), nn.Identity(), nn.BatchNorm3d(4)), (3, 5, 5, 5), 1),
        (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), (4, 6, 6), 1),
        (nn.Sequential(nn.ConvTranspose3d(3, 4, 2, stride=2), nn.BatchNorm3d(4)), (3, 4, 4, 4), 1),
        (nn.Sequential(nn.ConvTranspose2d(4, 8, 2, groups=2), nn.BatchNorm2d(8)), (4, 4, 4), 0),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())), (3, 5, 5), 1),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), (3, 5, 5), 0),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)), (3, 5, 5), 0),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), (3, 5, 5), 1),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), (3, 5, 5), 0),
        (nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU(), shared), (3, 5, 5), 0),
        (nn.Sequential(hooked, nn.BatchNorm2d(4)), (3, 6, 6), 0),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)), (3, 5, 5), 0),
        (tied, (3, 5, 5), 0),
        (Reversed(nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1)), (3, 5, 5), 0),
        (Reversed(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), (4, 5, 5), 0),
    ]


@pytest.mark.parametrize("number", range(16))
def test_batch_norms_fold_where_it_is_safe_and_nowhere_else(number: int) -> None:
    model, shape, expected = blocks()[number]
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine and module.running_mean is not None:
            stirred(module)
    model.eval()
    x = torch.rand(2, *shape)
    with torch.inference_mode():
        before = model(x)
    assert fuse_batch_norms(model) == expected
    with torch.inference_mode():
        assert torch.allclose(model(x), before, atol=1e-5, rtol=1e-5)


def test_batch_norms_of_monai_fold_too() -> None:
    """MONAI's Convolution keeps its BatchNorm one level down; with another order of its layers it stays."""
    pytest.importorskip("monai")
    from monai.networks.blocks import Convolution
    from monai.networks.nets import BasicUNet

    folding = Convolution(2, 3, 4, norm="batch", act="relu", dropout=0.2)
    other = Convolution(3, 3, 4, norm="batch", act="relu", adn_ordering="ADN")
    net = BasicUNet(3, 1, 2, features=(4, 4, 8, 8, 8, 4), norm="batch")
    for model, shape, expected in ((folding, (3, 8, 8), 1), (other, (3, 8, 8, 8), 0), (net, (1, 16, 16, 16), 18)):
        stirred(model)
        x = torch.rand(2, *shape)
        with torch.inference_mode():
            before = model(x)
            assert fuse_batch_norms(model) == expected
            assert float((model(x) - before).abs().max() / before.abs().max()) < 1e-5


def test_training_mode_is_left_alone() -> None:
    assert fuse_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()) == 0


def reshaped(sizes: list[int]) -> bytes:
    """x [batch, 4] -> Reshape -> Reshape -> y [batch, 4], with a constant batch if `sizes` say so."""
    stored = [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("a", sizes), ("b", [-1, 4]))]
    nodes = [
        helper.make_node("Reshape", ["x", "a"], ["m"], name="r"),
        helper.make_node("Reshape", ["m", "b"], ["y"], name="s"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    return data


def test_a_baked_batch_is_found() -> None:
    draw = parity.like({"x": np.array([[-1.0, 0, 0, 1]] * 2, np.float32)})
    good = parity.against_torch(nn.Identity(), reshaped([-1, 2, 2]), draw, outputs=["y"])
    assert good == {"y": Agreement(worst=0.0, sqnr_db=float("inf"))}
    assert across_batches(reshaped([-1, 2, 2]))["y"].worst == 0
    for check in (
        lambda: parity.against_torch(nn.Identity(), reshaped([2, 2, 2]), draw, outputs=["y"]),
        lambda: across_batches(reshaped([2, 2, 2])),
    ):
        with pytest.raises(BudgetError, match="cannot run a batch of"):
            check()
    parity.against_torch(nn.Identity(), reshaped([2, 2, 2]), draw, outputs=["y"], batches=(2,))


def test_a_graph_that_differs_from_torch_says_by_how_much(exported: tuple[Path, dict[str, Any], nn.Module]) -> None:
    out, _, model = exported
    draw = parity.like(EXAMPLES)
    found = parity.against_torch(model, out.read_bytes(), draw, outputs=OUTPUTS)
    assert all(agreement.within(FLOAT) for agreement in found.values())
    assert parity.as_record(found)["map"]["sqnr_db"] > 110
    bias = model.head.bias.data.clone()
    try:
        for change in (0.01, float("nan")):
            model.head.bias.data[0] += change
            with pytest.raises(BudgetError, match=r"ONNX and torch disagree: logits by .* dB"):
                parity.against_torch(model, out.read_bytes(), draw, outputs=OUTPUTS)
    finally:
        model.head.bias.data.copy_(bias)


def test_figures_are_what_they_say() -> None:
    reference, got = np.array([[3.0, -4.0]]), np.array([[3.0, -3.6]])
    worst, ratio = parity._measured(reference, got)
    assert worst == pytest.approx(0.1) and ratio == pytest.approx(10 * np.log10(25 / 0.16))
    assert parity._measured(reference, reference) == (0.0, float("inf"))
    for bad in (np.array([[np.nan, 0.0]]), np.array([[np.inf, 0.0]])):
        worst, ratio = parity._measured(reference, bad)
        assert not Agreement(worst=worst, sqnr_db=ratio).within(Budget(worst=9, sqnr_db=-99))
    assert parity._measured(np.zeros((1, 2)), np.ones((1, 2)))[1] == float("-inf")


def test_optimised_and_plain_agree_on_what_ships() -> None:
    """The gate for a fusion that is silently wrong. Noise is the hardest input: it lies outside what was calibrated."""
    bundle = find("hemorrhagenet")
    draw = HEMORRHAGENET.draw()
    # ONNX Runtime on a CPU runs none that is written in float16: see export/half_search.py.
    served = [graph for graph in bundle.manifest.graphs if graph.form in OnnxRuntime.forms]
    assert len(served) == 3
    for graph in served:
        data = (bundle.folder / graph.file).read_bytes()
        budget = INT8 if graph.precision == "int8" else FLOAT
        found = between_optimisations(data, draw, batches=(1,))
        assert parity.budget_of(onnx.load_from_string(data)) == budget
        assert found["logits"].sqnr_db > (40 if graph.precision == "int8" else 110)
        assert across_batches(data, draw, batch=2)["logits"].worst < 1e-5


def test_an_optimisation_that_changes_the_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an engine that is said to be wrong when it optimises: no such graph can be shipped here to be kept."""
    plain = parity._session

    def wrong(graph: bytes, *, optimised: bool) -> Any:
        return plain(reshaped([-1, 4]) if not optimised else negated(), optimised=optimised)

    def negated() -> bytes:
        model = onnx.load_from_string(reshaped([-1, 4]))
        model.graph.node[1].CopyFrom(helper.make_node("Neg", ["m"], ["y"], name="n"))
        data: bytes = model.SerializeToString()
        return data

    monkeypatch.setattr(parity, "_session", wrong)
    with pytest.raises(BudgetError, match="with and without optimisation disagree: y by 2"):
        between_optimisations(reshaped([-1, 4]))


def test_a_ready_onnx_is_taken_as_it_is(exported: tuple[Path, dict[str, Any], nn.Module], tmp_path: Path) -> None:
    model = onnx.load(exported[0])
    model.producer_name, model.doc_string = "pytorch", "/home/someone/train.py"
    model.graph.node[0].doc_string = 'File "/home/someone/net.py", line 3'
    model.graph.node[1].name = ""
    model.metadata_props.add(key="source", value="/home/someone/secret.py")
    onnx.save(model, tmp_path / "theirs.onnx")
    record = take_onnx(tmp_path / "theirs.onnx", tmp_path / "out" / "fp32.onnx", system="triage")
    data = (tmp_path / "out" / "fp32.onnx").read_bytes()
    assert b"someone" not in data and b"theirs" not in data
    assert record["format"] == "onnx" and record["source_producer"].startswith("pytorch")
    assert record["source_sha256"] == hashlib.sha256((tmp_path / "theirs.onnx").read_bytes()).hexdigest()
    taken = onnx.load_from_string(data)
    assert {item.key for item in taken.metadata_props} == {"edgehem.version", "edgehem.system", "edgehem.interface"}
    assert [n.op_type for n in taken.graph.node] == [n.op_type for n in model.graph.node]
    assert all(node.name for node in taken.graph.node)
    again = take_onnx(tmp_path / "out" / "fp32.onnx", tmp_path / "again.onnx", system="triage")
    assert again["sha256"] == record["sha256"]


def test_external_data_is_taken_in_from_its_own_folder_only(
    exported: tuple[Path, dict[str, Any], nn.Module], tmp_path: Path
) -> None:
    source = tmp_path / "in" / "net.onnx"
    source.parent.mkdir()
    onnx.save(onnx.load(exported[0]), source, save_as_external_data=True, location="net.data", size_threshold=0)
    record = take_onnx(source, tmp_path / "one.onnx", system="triage")
    assert record["embedded_bytes"] > 0 and record["sha256"] == exported[1]["sha256"]
    outside = tmp_path / "outside.data"
    outside.write_bytes((source.parent / "net.data").read_bytes())
    for place in ("../outside.data", str(outside), "link.data", "nowhere.data"):
        (source.parent / "link.data").unlink(missing_ok=True)
        (source.parent / "link.data").symlink_to(outside)
        model = onnx.load(source, load_external_data=False)
        for tensor in model.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                next(item for item in tensor.external_data if item.key == "location").value = place
        (tmp_path / "in" / "bad.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(UsageError, match=r"not in its own folder|is not there"):
            take_onnx(tmp_path / "in" / "bad.onnx", tmp_path / "two.onnx", system="triage")
    os.truncate(source.parent / "net.data", 40)
    with pytest.raises(UsageError, match="more data"):
        take_onnx(source, tmp_path / "two.onnx", system="triage")


def test_what_is_no_onnx_is_refused(exported: tuple[Path, dict[str, Any], nn.Module], tmp_path: Path) -> None:
    path, good = tmp_path / "x.onnx", exported[0].read_bytes()
    old, broken = onnx.load_from_string(good), onnx.load_from_string(good)
    old.opset_import[0].version = 9
    broken.graph.node[0].input[0] = "nowhere"
    for content, said in (
        (b"", "0 bytes"),
        (b"PK\x03\x04 a zip", "damaged, or no ONNX|no ONNX model"),
        (good[: len(good) // 2], "damaged, or no ONNX"),
        (old.SerializeToString(), "opset 9; 13 to 24"),
        (broken.SerializeToString(), "ONNX's checker refuses"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            take_onnx(path, tmp_path / "out.onnx", system="triage")
    assert not (tmp_path / "out.onnx").exists()
