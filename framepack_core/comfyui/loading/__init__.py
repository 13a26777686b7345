"""From a file to a MODEL."""
