"""Worlds made from seeds: questions whose answers are known exactly, as many as wanted.

world.py     an item and its split; `make_world` writes shards
text.py      arithmetic, comparison, spelling, counting, facts (facts.py), the week, memory, and what nobody can know
pictures.py  coloured shapes and digits (drawing.py): what, which colour, how many, where
objects.py   animals, food, vehicles, things of the house, from packages (things.py): what, where, how many
sounds.py    39 noises (noises.py): which, how many, in which order, rising or falling
videos.py    shapes in motion (moving.py): which way, in which order, how often
omni.py      sound with video: which of them sounded, before or after the hit
speech.py    many voices read sentences and answer questions

encode.py and ogg.py make files whose bytes are the same again; packages.py fetches what others published.
"""
