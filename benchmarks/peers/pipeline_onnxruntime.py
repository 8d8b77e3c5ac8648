"""ONNX Runtime with the float graph behind plain preprocessing."""

from __future__ import annotations

from edgehem.benchmarks.peers import pipeline_plain as plain
from edgehem.benchmarks.pipelines.contender import NETWORK, Answer, Clock, Job, Pipeline, Study

HOW = f"{plain.HOW}; InferenceSession of the float graph, as many threads"


def make(job: Job) -> Pipeline:
    """A pipeline as its quick start has it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(job.graph, options, providers=["CPUExecutionProvider"])
    names, preprocess = list(job.outputs), plain.Plain(job)

    def run(study: Study, clock: Clock) -> Answer:
        tensor = preprocess(study, clock)
        with clock.stage(NETWORK):
            values = session.run(names, {"image": tensor, "valid": plain.valid(study)})
        return Answer(outputs=dict(zip(names, values, strict=True)), tensor=tensor)

    return Pipeline(run=run)
