// Plays the video so far in a sampler node that has a preview_vae.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { findNode } from "./graph.js"

const WIDGET = "framepack_clip"
const HEIGHT = 200 // pixels, at least

app.registerExtension({
  name: "FramePack.Clip",
  setup() {
    api.addEventListener("framepack.clip", ({ detail }) => {
      const node = findNode(detail.node)
      if (node) play(node, detail)
    })
  },
})

function play(node, { filename, subfolder, type }) {
  const widget = node.widgets?.find(({ name }) => name === WIDGET) ?? addPlayer(node)
  widget.element.src = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
}

function addPlayer(node) {
  const video = document.createElement("video")
  Object.assign(video, { autoplay: true, controls: true, loop: true, muted: true, playsInline: true })
  Object.assign(video.style, { width: "100%", objectFit: "contain" })
  const widget = node.addDOMWidget(WIDGET, "video", video, { getMinHeight: () => HEIGHT, hideOnZoom: false, serialize: false })
  widget.serialize = false // neither in prompts nor in saved workflows
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
  return widget
}
