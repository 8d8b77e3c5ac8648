"""Checkpoint to ONNX to INT8 to bundle, on a small cohort: what every stage promises. Needs torch."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

import msgspec  # noqa: E402
import onnx  # noqa: E402

import edgehem  # noqa: E402
from edgehem import arguments, phantom  # noqa: E402
from edgehem.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from edgehem.bundle import Bundle  # noqa: E402
from edgehem.errors import BudgetError, BundleError, UsageError  # noqa: E402
from edgehem.export import bundling, commands  # noqa: E402
from edgehem.export.evaluate import judge, summarise  # noqa: E402
from edgehem.export.int8.judge import Budget  # noqa: E402
from edgehem.export.int8.search import PLAIN  # noqa: E402
from edgehem.export.interface import HEMORRHAGENET, float_graph  # noqa: E402
from edgehem.export.models.hemorrhagenet import LABELS, HemorrhageNet  # noqa: E402
from edgehem.export.parity import against_torch  # noqa: E402
from edgehem.export.quantize import network_input, quantize, split  # noqa: E402
from edgehem.export.readiness import lint  # noqa: E402
from edgehem.export.samples import UNKNOWN, Cache, Sample, build_cache  # noqa: E402
from edgehem.export.to_onnx import fuse_batch_norms, load_checkpoint  # noqa: E402
from edgehem.export.train import Augmenter, Phase, Sampler, Settings, hierarchical_loss, train, windowed  # noqa: E402
from edgehem.kernels import window  # noqa: E402
from edgehem.preprocess import CANONICAL  # noqa: E402

HEADS = 6
ANY = Budget(auc_drop=1, flips=1, shift=1)
"""Random weights have no decisions worth keeping."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Noise heads with and without a bright block: enough for every stage to run on, not to learn medicine from."""
    rng = np.random.default_rng(0)
    samples = []
    for head in range(HEADS):
        for bleeding in (0, 1):
            hu = rng.normal(32, 4, CANONICAL.shape).astype(np.int16)
            hu[:, :20] = hu[:, -20:] = -1000
            blood = np.zeros((40, 56, 56), np.uint8)
            area = np.zeros((40, 5), np.float32)
            if bleeding:
                row, plane = int(rng.integers(60, 150)), int(rng.integers(8, 30))
                hu[plane : plane + 4, row : row + 24, 80:104] = 65
                blood[plane : plane + 4, row // 4 : row // 4 + 6, 20:26] = 255
                area[plane : plane + 4, 4] = 576
            valid = np.ones(40, np.float32)
            valid[:3] = 0
            labels = np.array([bleeding, 0, 0, 0, 0, bleeding], np.int8)
            samples.append(
                Sample(group=head, hu=hu, valid=valid, labels=labels, blood=blood, area_mm2=area, mapped=True)
            )
    return build_cache(tmp_path_factory.mktemp("data") / "cache", samples, 2 * HEADS, record={"source": "phantom test"})


@pytest.fixture(scope="session")
def checkpoint(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "net.pt"
    phases = (Phase(planes=12, batch=4, steps=4), Phase(planes=40, batch=2, steps=2))
    train(cache, out, Settings(phases=phases, bfloat16=False))
    return out


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both graphs, made by the stages themselves."""
    out = tmp_path_factory.mktemp("bundles") / "mine"
    commands.export(checkpoint, system="hemorrhagenet", out=out)
    manifest = Bundle(out).manifest
    record = quantize(out / "fp32.onnx", out, cache, CANONICAL, manifest.heads[0], recipes=(PLAIN,), budget=ANY)
    bundling.write_record(out, "quantization", record)
    added = [bundling.graph_entry(out, name, "int8", graph["form"]) for name, graph in record["graphs"].items()]
    bundling.write_manifest(out, msgspec.structs.replace(manifest, graphs=(*manifest.graphs, *added)))
    return out


def test_torch_windows_are_the_kernels_windows() -> None:
    hu = np.random.default_rng(1).uniform(-1100, 2500, (2, 16, 16)).astype(np.float32)
    expected = window(hu, CANONICAL.kernel_windows)
    assert np.allclose(windowed(torch.from_numpy(hu), CANONICAL).numpy(), expected, atol=1e-6)


def test_subtypes_cost_nothing_where_nothing_bleeds() -> None:
    """The hierarchy: without hemorrhage the subtype logits are free, and unknown labels never count."""
    logits = torch.zeros(2, len(LABELS), requires_grad=True)
    labels = torch.zeros(2, len(LABELS))
    labels[1] = float(UNKNOWN)
    hierarchical_loss(logits, labels).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] != 0 and not logits.grad[0, 1:].any() and not logits.grad[1].any()


def test_batches_pair_a_head_with_itself(cache: Cache) -> None:
    batch = Sampler(cache, Settings(), CANONICAL).batch(Phase(planes=16, batch=4, steps=1))
    assert batch.image.shape == (4, 16, 3, 224, 224)
    assert float(batch.image.min()) >= 0 and float(batch.image.max()) <= 1
    assert batch.labels[1::2, 0].tolist() == [0, 0]
    assert not batch.blood[1::2].any()


def test_flips_and_moves_keep_image_and_map_together(cache: Cache) -> None:
    """Where the augmented map says blood, the augmented image is bright."""
    sampler = Sampler(cache, Settings(seed=3), CANONICAL)
    for _ in range(4):
        batch = sampler.batch(Phase(planes=40, batch=2, steps=1))
        cells = torch.nn.functional.avg_pool2d(batch.image[0, :, 1], 4)  # subdural window
        inside, outside = cells[batch.blood[0] > 0.9], cells[(batch.blood[0] == 0) & (cells > 0.1)]
        assert float(inside.mean()) > float(outside.mean()) + 0.05


def test_attention_never_falls_on_planes_that_were_not_scanned() -> None:
    model = HemorrhageNet().eval()
    valid = torch.ones(1, 40)
    valid[:, :9] = 0
    with torch.inference_mode():
        logits, attention, _, blood = model(torch.rand(1, 40, 3, 224, 224), valid)
    assert logits.shape == (1, 6) and blood.shape == (1, 40, 56, 56)
    assert float(attention[:, :9].max()) < 1e-12
    assert float(attention.sum()) == pytest.approx(1, abs=1e-5)


def test_training_is_seeded_and_leaves_a_record(cache: Cache, checkpoint: Path, tmp_path: Path) -> None:
    record = json.loads(checkpoint.with_suffix(".json").read_text())
    assert record["steps"] == 6 and record["samples"] == 2 * HEADS
    again = tmp_path / "again.pt"
    phases = (Phase(planes=12, batch=4, steps=4), Phase(planes=40, batch=2, steps=2))
    train(cache, again, Settings(phases=phases, bfloat16=False))
    first, second = (torch.load(p, weights_only=True) for p in (checkpoint, again))
    assert all(torch.allclose(first[k], second[k], atol=1e-5) for k in first)


def test_a_time_limit_shortens_the_schedule(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a fake clock of 0.3 s a step, a limit of 1.8 s leaves time for both phases and far fewer steps than asked."""
    ticks = count(step=0.3)
    monkeypatch.setattr("edgehem.export.train.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    phases = (Phase(planes=12, batch=2, steps=4000), Phase(planes=40, batch=2, steps=4000))
    record = train(cache, tmp_path / "short.pt", Settings(phases=phases, bfloat16=False), minutes=0.03)
    assert 3 <= record["steps"] <= 7


def test_refining_starts_from_the_weights_it_is_given(cache: Cache, checkpoint: Path, tmp_path: Path) -> None:
    """One tiny step at a tiny rate stays near the start."""
    settings = Settings(phases=(Phase(planes=12, batch=2, steps=1),), learning_rate=1e-6, rim_hu=12.0, bfloat16=False)
    train(cache, tmp_path / "refined.pt", settings, initial=load_checkpoint(checkpoint, CANONICAL))
    start, end = (torch.load(p, weights_only=True) for p in (checkpoint, tmp_path / "refined.pt"))
    weights = [name for name in start if name.endswith("weight")]
    assert all(torch.allclose(start[name], end[name], atol=1e-3) for name in weights)


def test_the_rim_brightens_what_lies_beside_bone_only() -> None:
    hu = np.full((1, 224, 224), 30, np.int16)
    hu[:, :, :10] = 1200
    quiet, rim = (Augmenter(np.random.default_rng(5), CANONICAL, rim_hu) for rim_hu in (0.0, 12.0))
    rim.rng = _Fixed(0.5)  # type: ignore[assignment]
    quiet.rng = _Fixed(0.5)  # type: ignore[assignment]
    plain, bright = quiet.image(hu)[0, 0], rim.image(hu)[0, 0]
    assert float((bright - plain)[:, 12].mean()) > 2 / 80
    assert torch.allclose(bright[:, 60:], plain[:, 60:])


class _Fixed:
    """A random generator that always draws the same: only differences between two runs are looked at."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value

    def uniform(self, low: float, high: float) -> float:
        return low + self.value * (high - low)

    def normal(self, mean: float, _: float, size: int | None = None) -> object:
        return mean if size is None else np.full(size, mean)

    def integers(self, low: int, _: int | None = None, size: int | None = None) -> object:
        return 0 if size is None else np.zeros(size, int)


def test_folding_batch_norms_changes_nothing() -> None:
    torch.manual_seed(0)
    model = HemorrhageNet().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    inputs = torch.rand(1, 40, 3, 224, 224), torch.ones(1, 40)
    with torch.inference_mode():
        before = model(*inputs)
        fuse_batch_norms(model)
        after = model(*inputs)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    for b, a in zip(before, after, strict=True):
        assert torch.allclose(b, a, atol=1e-4)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}}])
def test_checkpoint_layouts_are_understood(tmp_path: Path, wrap: object) -> None:
    path = tmp_path / "net.pt"
    state = HemorrhageNet().state_dict()
    torch.save(wrap(state), path)  # type: ignore[operator]
    assert torch.equal(load_checkpoint(path, CANONICAL).state_dict()["slice_logits.bias"], state["slice_logits.bias"])


def test_a_foreign_checkpoint_is_refused_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    state = HemorrhageNet().state_dict()
    state["extra.weight"] = torch.zeros(1)
    del state["slice_logits.bias"]
    state["reduce.bias"] = torch.zeros(3)
    torch.save(state, path)
    listed = r"missing slice_logits.bias; unexpected extra.weight; reduce.bias has shape \(3,\)"
    with pytest.raises(UsageError, match=listed):
        load_checkpoint(path, CANONICAL)


def test_a_pickled_module_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(HemorrhageNet(), path)
    with pytest.raises(UsageError, match=r"torch.save\(model.state_dict"):
        load_checkpoint(path, CANONICAL)


def test_the_graph_has_a_dynamic_batch_and_leaks_no_paths(bundle: Path) -> None:
    data = (bundle / "fp32.onnx").read_bytes()
    graph = onnx.load_from_string(data)
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert b".py" not in data and b"/home" not in data and b"site-packages" not in data
    image = np.random.default_rng(2).random((2, 40, 3, 224, 224), np.float32)
    valid = np.ones((2, 40), np.float32)
    session = OnnxRuntimeSession(data)
    both, one = session.run({"image": image, "valid": valid}), session.run({"image": image[1:], "valid": valid[1:]})
    assert np.allclose(both["logits"][1:], one["logits"], atol=1e-4)


def test_a_graph_that_differs_from_torch_leaves_its_budget(checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint, CANONICAL)
    float_graph(checkpoint, HEMORRHAGENET, tmp_path / "net.onnx")
    with torch.no_grad():
        model.slice_logits.bias += 0.5
    with pytest.raises(BudgetError, match="disagree"):
        against_torch(model, (tmp_path / "net.onnx").read_bytes(), HEMORRHAGENET.draw(), outputs=HEMORRHAGENET.outputs)


def test_int8_is_what_tensorrt_takes_and_stays_near_float(bundle: Path, cache: Cache) -> None:
    assert lint(onnx.load(bundle / "int8.onnx")).ready
    assert not lint(onnx.load(bundle / "int8_u8.onnx")).ready
    assert (bundle / "int8.onnx").stat().st_size < 0.5 * (bundle / "fp32.onnx").stat().st_size
    inputs = network_input(cache, 1, CANONICAL)
    float_, *whole = (
        OnnxRuntimeSession((bundle / name).read_bytes()).run(inputs)["logits"]
        for name in ("fp32.onnx", "int8.onnx", "int8_u8.onnx")
    )
    for logits in whole:
        assert np.allclose(float_, logits, atol=0.1)
    record = json.loads((bundle / "records/quantization.json").read_text(encoding="utf-8"))
    assert record["layers"]["kept_float"] and record["layers"]["quantised"] and not record["layers"]["reverted"]
    assert record["calibration_studies"] + record["selection_studies"] == len(cache)
    assert record["figures"]["studies"] == record["selection_studies"]


def test_float16_variants_come_with_both(bundle: Path) -> None:
    """Ready, judged, and never handed to an engine that does not take them."""
    opened = Bundle(bundle)
    forms = {graph.form: graph.file for graph in opened.manifest.graphs}
    assert set(forms) == {"float", "float16", "qdq-s8", "qdq-u8", "qdq-s8-f16"}
    for form in ("float16", "qdq-s8-f16"):
        assert lint(onnx.load(bundle / forms[form])).ready
    record = json.loads((bundle / "records/fp16.json").read_text(encoding="utf-8"))
    assert record["figures"]["worst_sqnr_db"] >= 40 and record["studies"] == 4
    assert record["sha256"] == opened.graph("fp16").sha256
    beside = json.loads((bundle / "records/quantization.json").read_text(encoding="utf-8"))["half"]
    assert beside["figures"]["worst_sqnr_db"] >= beside["budget"]["sqnr_db"]
    with pytest.raises(BundleError, match="engine takes"):
        edgehem.load(bundle, precision="fp16", backend="onnxruntime")


def test_no_patient_both_calibrates_and_chooses(cache: Cache) -> None:
    first, second = split(cache)
    assert len(first) and len(second)
    assert not set(cache.group[first]) & set(cache.group[second])
    assert np.array_equal(split(cache)[0], first)


def test_a_bundle_of_a_users_checkpoint_runs_and_verifies(bundle: Path) -> None:
    opened = Bundle(bundle)
    opened.verify()
    assert opened.manifest.demonstration  # its training record names phantoms
    assert {"MODEL_CARD.md", "records/export.json", "records/training.json", "records/quantization.json"} <= set(
        opened.manifest.files
    )
    assert edgehem.load(bundle, precision="int8").info.precision == "int8"
    with pytest.raises(UsageError, match="bundle already"):
        commands.export(bundle, system="hemorrhagenet", out=bundle)


def test_weights_of_unknown_origin_must_be_explained(checkpoint: Path, tmp_path: Path) -> None:
    """Without a training record nothing is assumed: neither that they are a demonstration nor that they are not."""
    copy = tmp_path / "elsewhere.pt"
    copy.write_bytes(checkpoint.read_bytes())
    with pytest.raises(UsageError, match="--trained-on"):
        commands.export(copy, system="hemorrhagenet", out=tmp_path / "bundle")
    commands.export(copy, system="hemorrhagenet", out=tmp_path / "patients", trained_on="patients")
    assert not Bundle(tmp_path / "patients").manifest.demonstration
    commands.export(copy, system="hemorrhagenet", out=tmp_path / "phantoms", trained_on="phantoms")
    assert Bundle(tmp_path / "phantoms").manifest.demonstration


def test_phantom_weights_cannot_be_passed_off_as_patients(checkpoint: Path, tmp_path: Path) -> None:
    """The training record outweighs what is claimed."""
    commands.export(checkpoint, system="hemorrhagenet", out=tmp_path / "bundle", trained_on="patients")
    assert Bundle(tmp_path / "bundle").manifest.demonstration


def test_judging_goes_through_dicom_and_the_whole_runtime(bundle: Path) -> None:
    """Phantoms are written as DICOM, read back and triaged at both precisions; the truth comes along."""
    judged = judge(bundle, "phantoms:2:77")
    assert [item.labels["any"] for item in judged] == [0, 1]
    assert sum(judged[1].ml.values()) >= 2
    for item in judged:
        assert set(item.results) == {"fp32", "int8"}
        assert {"preprocess", "infer", "decide"} <= set(item.results["int8"].timings_ms)
        shift = [
            a.probability - b.probability for a, b in zip(*(r.findings for r in item.results.values()), strict=True)
        ]
        assert max(map(abs, shift)) < 0.1
    summary = summarise(judged)
    assert summary["studies"] == 2 and summary["precisions"]["int8"]["against_fp32"]["flips"] in (0, 1, 2)
    with pytest.raises(UsageError, match="phantoms:COUNT:SEED"):
        judge(bundle, "phantom-heads:2:77")


def test_a_study_without_a_result_stays_in_the_judgement(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    table = tmp_path / "table.csv"
    table.write_text("patient_id,ct,any\np1,empty,1\n", encoding="utf-8")
    summary = summarise(judge(bundle, str(table)))
    assert summary["precisions"]["fp32"]["no_result"] == 1 == summary["bleeding"]
    assert summary["precisions"]["fp32"]["sensitivity"][0] == 0
    table.write_text("patient_id,ct,any\np1,nowhere,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        judge(bundle, str(table))


def test_labels_are_listed_in_one_order_everywhere() -> None:
    """Three lists, so that the network stands alone and the command line starts light; one order."""
    assert phantom.LABELS == LABELS == ("any", *arguments.SUBTYPES)
