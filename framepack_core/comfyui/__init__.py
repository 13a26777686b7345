"""The only folder, besides the nodes, that imports ComfyUI."""
