"""Helios, FramePack's packing on Wan, as one of ComfyUI's models."""
