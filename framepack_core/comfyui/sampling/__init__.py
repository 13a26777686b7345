"""From a request to the latents of a video."""
