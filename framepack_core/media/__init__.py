"""Videos and pictures, and the writer of whole files."""
