"""The node that ComfyUI executes, spoken to while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .. import private


@dataclass(frozen=True)
class RunningNode:
    """The node that ComfyUI executes, to be spoken to from any thread.

    The bar's own way to show a picture is for the sampling thread only: it raises a cancel, and only once.
    """

    id: str
    server: Any

    @classmethod
    def current(cls) -> RunningNode | None:
        """None outside ComfyUI's execution. Raises private.Missing where the node could not be shown anything."""
        private.require("get_progress_state", "ProgressRegistry", "supports_feature", "UNENCODED_PREVIEW_IMAGE")
        context = private.get_executing_context()
        if context is None:
            return None
        from server import PromptServer  # exists in a running ComfyUI only

        server = PromptServer.instance
        private.require_attributes(server, "client_id", "send_sync", "sockets_metadata", serves=private.PREVIEWS)
        private.require_attributes(private.get_progress_state(), "dynprompt", serves=private.PREVIEWS)
        return cls(context.node_id, server)

    def show(self, picture: Image.Image, value: float, most: float) -> None:
        """A picture, beside the bar's state."""
        preview = ("JPEG", picture, None)
        private.get_progress_state().update_progress(self.id, value, most, preview)
        server, client = self.server, self.server.client_id
        if not private.supports_feature(server.sockets_metadata, client, "supports_preview_metadata"):
            server.send_sync(private.UNENCODED_PREVIEW_IMAGE, preview, client)

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """An event for the pack's own code in the front end."""
        node = private.get_progress_state().dynprompt.get_display_node_id(self.id)
        self.server.send_sync(event, {"node": node, **data}, self.server.client_id)
