"""Training of packed transformers: `python -m framepack_core.training --help`."""
