"""FramePack without ComfyUI: layouts, plans, packing, solver. Only `framepack_core.comfyui` imports comfy."""
