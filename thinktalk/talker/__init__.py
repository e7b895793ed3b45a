"""TALKER: what the Thinker says, as it says it, to speech codes."""
