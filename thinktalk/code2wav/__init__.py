"""CODE2WAV: speech codes to 24 kHz sound: a flow-matching DiT makes the mel, BigVGAN the wave."""
