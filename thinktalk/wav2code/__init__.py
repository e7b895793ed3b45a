"""Wave to codes: the speech tokenizer, the inverse of code2wav (for training and for voice prompts)."""
