"""Names and number formats of weights."""
