"""Helios (arXiv 2603.04379): how it samples a video, chunk by chunk and coarse to fine, without its transformer."""
