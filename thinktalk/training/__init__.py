"""Training: shards -> batches -> stage.loss -> gradients -> checkpoints that a killed run goes on from, bit by bit.

stage.py says what a stage is; loop.py runs it; losses.py is what they minimise. Recipes (thinktalk/recipes) put them together.
"""
