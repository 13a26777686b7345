// Replaces %date:yyyy-MM-dd% and %Node.widget% in the name of the saved video, as ComfyUI's own nodes that save do.

import { app } from "../../scripts/app.js"
import { applyTextReplacements } from "../../scripts/utils.js"

app.registerExtension({
  name: "FramePack.Filename",
  nodeCreated(node) {
    if (node.comfyClass !== "FramePack_SaveVideo") return
    const widget = node.widgets.find(({ name }) => name === "filename_prefix")
    widget.serializeValue = () => applyTextReplacements(app, widget.value)
  },
})
