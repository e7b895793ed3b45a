"""Evaluation: what a model can do, by judges it never learned with, item by item, with intervals.

bench.py      what every ability gets: the model, held-out data, judges, and where results go
items.py      one item -> one JSON line, resumed after a kill
rows.py       a line of the table and its interval
heldout.py    held-out sets, made from seeds
judges/       who judges: recognisers, speakers, quality
suites/       what is asked, one file an ability
"""
