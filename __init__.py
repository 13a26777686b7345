"""FramePack for ComfyUI. Nothing heavy is imported until ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import FramePackExtension

    return FramePackExtension()
