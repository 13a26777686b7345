// Breaks the lines that our nodes show between words. The front end would break them anywhere.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { findNode } from "./graph.js"

app.registerExtension({
  name: "FramePack.Words",
  setup() {
    api.addEventListener("progress_text", ({ detail }) => {
      if (findNode(detail.nodeId)?.type?.startsWith("FramePack_")) requestAnimationFrame(() => breakAtWords(detail.text))
    })
  },
})

/** The front end gives the element that holds a node's text no name; it is known by the text. */
function breakAtWords(text) {
  for (const element of document.querySelectorAll(".break-all")) {
    if (letters(element.textContent) === letters(text)) Object.assign(element.style, { wordBreak: "normal", overflowWrap: "anywhere" })
  }
}

function letters(text) {
  return text.replaceAll(/\s/g, "")
}
