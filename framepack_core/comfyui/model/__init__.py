"""FramePack as one of ComfyUI's models."""
