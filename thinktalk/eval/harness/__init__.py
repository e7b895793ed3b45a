"""Harnesses: benchmarks that others keep are measured by their programs; ours is only the model that these ask.

scoring.py    how likely a text is, and what the model writes: batched, without any harness
lm_eval.py    the model of lm-evaluation-harness: text          (extra eval-text)
lmms_eval.py  the model of lmms-eval: pictures, videos, sound   (lmms-eval brings its own requirements)
tasks.py      the report's benchmarks: which harness, which task, which metric

A module of a harness is imported only where its harness is wanted.
"""
