"""Training data: tar shards -> a plan of batches that can stop anywhere -> samples -> what a stage learns from.

shards.py    tar files: where every sample lies; damaged places are named, never fatal
samples.py   the one sample format: JSON with ChatML messages, and media
mixture.py   sources with weights, shuffled by arithmetic
plan.py      batches: bucketed by duration, or rows packed by length
loader.py    the plan read by any number of ranks and workers; its place is one number
examples.py  a sample as the Thinker learns it: ids, positions, labels, media
speech.py    a spoken sample as stages learn it: labels, the phone of each frame, augmentation
packing.py   many examples in one row that cannot see each other
prompts.py   tasks in natural language; splits by hash
making.py    recordings with transcripts -> shards
chats.py     conversations as ms-swift and LLaMA-Factory take them -> shards
checking.py  what is wrong with shards, by name
show.py      samples as a page to look at and listen to
synth/       worlds made from seeds, with exact answers
"""
