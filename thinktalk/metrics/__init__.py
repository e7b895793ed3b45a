"""Metrics: what training (preference pairs, gates) and evaluation both need, as numbers with their intervals.

wer.py        words and characters that went wrong, after English normalisation
pauses.py     pauses that punctuation asks for and that are missing, and those out of place
similarity.py how alike two voices are, and whose one is
intervals.py  bootstrap intervals of rates and of their differences, sample by sample
"""
