"""From files to a MODEL."""
