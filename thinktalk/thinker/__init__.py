"""THINKER: the multimodal language model: embeddings in, text tokens and hidden states out."""
