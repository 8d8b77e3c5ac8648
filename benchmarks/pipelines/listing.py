"""Every way from a folder to logits that is compared."""

from __future__ import annotations

from edgehem.benchmarks.peers import pipeline_monai, pipeline_monai_tuned, pipeline_onnxruntime, pipeline_openvino
from edgehem.benchmarks.pipelines.contender import FLOOR, OURS, Contender
from edgehem.benchmarks.pipelines.network import AUTO

BASELINE = "edgehem"
DEFAULT, TUNED = "monai", "monai-tuned"

_HERE = "edgehem.benchmarks.pipelines.ours"
_PEERS = "edgehem.benchmarks.peers"
CONTENDERS = (
    Contender(
        name=BASELINE,
        title="edgehem, as `auto` serves it",
        how="read_study with every gate, its own head finder, antialiased; what auto serves after edgehem compile",
        where=f"{_HERE}:served",
        role=OURS,
        distributions=("edgehem",),
        choice=AUTO,
        resampling="antialiased",
        places_itself=True,
        int8=True,
    ),
    Contender(
        name="edgehem-onnxruntime",
        title="edgehem, ONNX Runtime alone",
        how="the same where only ONNX Runtime is installed",
        where=f"{_HERE}:served",
        role=OURS,
        distributions=("onnxruntime",),
        choice="onnxruntime",
        resampling="antialiased",
        places_itself=True,
        int8=True,
    ),
    Contender(
        name=DEFAULT,
        title="torch + MONAI, default",
        how=pipeline_monai.HOW,
        where=f"{_PEERS}.pipeline_monai:make",
        distributions=("monai", "torch", "itk"),
    ),
    Contender(
        name=TUNED,
        title="torch + MONAI, tuned",
        how=pipeline_monai_tuned.HOW,
        where=f"{_PEERS}.pipeline_monai_tuned:make",
        distributions=("monai", "torch", "itk"),
        variables=pipeline_monai_tuned.VARIABLES,
    ),
    Contender(
        name="onnxruntime-plain",
        title="ONNX Runtime fp32, pydicom + SciPy",
        how=pipeline_onnxruntime.HOW,
        where=f"{_PEERS}.pipeline_onnxruntime:make",
        distributions=("onnxruntime", "scipy", "pydicom"),
    ),
    Contender(
        name="openvino-nncf-plain",
        title="OpenVINO with NNCF INT8, pydicom + SciPy",
        how=pipeline_openvino.HOW,
        where=f"{_PEERS}.pipeline_openvino:make",
        distributions=("openvino", "nncf", "scipy", "pydicom"),
        int8=True,
    ),
    Contender(
        name="floor",
        title="the engine alone, on a ready tensor",
        how="the bare call of the library that edgehem is served by, same graph and settings, on a ready tensor",
        where=f"{_HERE}:floor",
        role=FLOOR,
        choice=AUTO,
        resampling="antialiased",
        places_itself=True,
        int8=True,
    ),
    Contender(
        name="floor-onnxruntime",
        title="ONNX Runtime alone, on a ready tensor",
        how="the same with ONNX Runtime alone",
        where=f"{_HERE}:floor",
        role=FLOOR,
        choice="onnxruntime",
        resampling="antialiased",
        places_itself=True,
        int8=True,
    ),
)
