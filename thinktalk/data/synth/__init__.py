"""Worlds made from seeds: questions whose answers are known exactly, as many as wanted, nothing downloaded.

world.py     an item and its split; `make_world` writes shards
text.py      arithmetic, comparison, spelling, counting, capitals, the week, and what nobody can know
pictures.py  coloured shapes: what, which colour, how many, where
"""
