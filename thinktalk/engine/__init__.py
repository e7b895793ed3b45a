"""Many conversations at once: they listen while you speak and speak while they think."""
