"""Measuring edgehem, alone and beside its peers: ``edgehem bench``. Timings tell; they decide nothing.

Nothing here is needed to run a model, and every peer is optional: what is not installed is passed over with a word.
"""
