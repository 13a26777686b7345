"""The demo: a synthetic world, and the small models that were trained on it."""
