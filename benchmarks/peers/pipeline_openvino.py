"""OpenVINO with NNCF's INT8 behind plain preprocessing."""

from __future__ import annotations

from edgehem.backends.openvino import core
from edgehem.benchmarks.contender import PassedOverError
from edgehem.benchmarks.peers import pipeline_plain as plain
from edgehem.benchmarks.pipelines.contender import NETWORK, Answer, Clock, Job, Pipeline, Study

HOW = f"{plain.HOW}; OpenVINO, nncf.quantize with its defaults, latency hint, its own arithmetic"


def make(job: Job) -> Pipeline:
    """A pipeline as OpenVINO's documentation has it: the hint, and its own choice of everything else.

    edgehem's way of importing the library is used: the same, but it reports to nobody.
    """
    if not job.nncf:
        raise PassedOverError(job.no_nncf)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(job.threads)}
    compiled = core().compile_model(job.nncf, "CPU", settings)
    preprocess = plain.Plain(job)

    def run(study: Study, clock: Clock) -> Answer:
        tensor = preprocess(study, clock)
        with clock.stage(NETWORK):
            results = compiled({"image": tensor, "valid": plain.valid(study)})
        return Answer(outputs={name: results[name] for name in job.outputs}, tensor=tensor)

    return Pipeline(run=run)
