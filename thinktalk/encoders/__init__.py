"""ENCODERS: mel frames and picture patches to embeddings as wide as the Thinker."""
