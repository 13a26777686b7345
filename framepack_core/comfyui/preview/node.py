"""Messages to the node that ComfyUI is executing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .. import private


@dataclass(frozen=True)
class RunningNode:
    """The node that ComfyUI is executing, which any thread can send messages to.

    The progress bar can show pictures too, but is for the sampling thread only: it raises a pending cancel, which is then gone.
    """

    id: str
    server: Any

    @classmethod
    def current(cls) -> RunningNode | None:
        """None if ComfyUI is not executing a node. Raises private.Missing if nothing could be shown in the node."""
        private.require("get_progress_state", "ProgressRegistry", "supports_feature", "UNENCODED_PREVIEW_IMAGE")
        context = private.get_executing_context()
        if context is None:
            return None
        from server import PromptServer  # only exists in a running ComfyUI

        server = PromptServer.instance
        private.require_attributes(server, "client_id", "send_sync", "sockets_metadata", serves=private.PREVIEWS)
        private.require_attributes(private.get_progress_state(), "dynprompt", serves=private.PREVIEWS)
        return cls(context.node_id, server)

    def show(self, picture: Image.Image, value: float, most: float) -> None:
        """Show a picture, together with the state of the bar."""
        preview = ("JPEG", picture, None)
        private.get_progress_state().update_progress(self.id, value, most, preview)
        server, client = self.server, self.server.client_id
        if not private.supports_feature(server.sockets_metadata, client, "supports_preview_metadata"):
            server.send_sync(private.UNENCODED_PREVIEW_IMAGE, preview, client)

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """Send an event to the pack's own code in the front end."""
        node = private.get_progress_state().dynprompt.get_display_node_id(self.id)
        self.server.send_sync(event, {"node": node, **data}, self.server.client_id)
