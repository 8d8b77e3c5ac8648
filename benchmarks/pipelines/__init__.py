"""Whole pipelines, from a folder of slices to logits: edgehem beside what others would write.

Each contender is a process of its own. :mod:`.run` asks :mod:`.worker` children for rounds; :mod:`.listing` has the
contenders, :mod:`.agreement` says who may be timed.
"""
