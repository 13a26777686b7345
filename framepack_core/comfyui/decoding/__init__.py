"""From latents to frames, in a stream."""
