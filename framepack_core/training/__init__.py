"""Training of transformers with packed context: `python -m framepack_core.training --help`."""
