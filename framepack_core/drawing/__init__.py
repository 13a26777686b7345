"""The plan as a picture: `chart` says what is in it, `painting` how it looks."""
