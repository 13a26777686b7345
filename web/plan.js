// Shows the drawing of a plan in its own node while it is changed, and fills it in while a sampler runs.

import { api } from "../../scripts/api.js"
import { findNode, sourceOf } from "./graph.js"
import { SHARPNESS, drawInNodes, element, percent, showBars } from "./live.js"

const HEIGHT = 56 // units of the canvas, at least
const BARS = 17 // units: the prompts above the drawing, if they have times
const MOST_STRETCHED = 2 // how many times as high as it is drawn the picture may be
const SAMPLERS = ["FramePack_Sampler", "FramePack_SamplerCustom"]

const drawings = drawInNodes({
  name: "plan",
  type: "FramePack_Plan",
  make: makeDrawing,
  show: showPlan,
  setup: () => api.addEventListener("framepack.sections", ({ detail }) => showProgress(detail)),
})

function makeDrawing() {
  const bars = element("div", { position: "relative", flex: "none", font: "11px/16px sans-serif", marginBottom: "1px" })
  const image = element("img", { position: "absolute", inset: "0", width: "100%", height: "100%", objectFit: "fill" })
  const rows = element("div", { position: "absolute", inset: "0" })
  const picture = element("div", { position: "relative", flex: "1", minHeight: "0" }, image, rows)
  const box = element("div", { display: "flex", flexDirection: "column", width: "100%", height: "100%" }, bars, picture)
  const words = element("div", { position: "absolute", inset: "0", padding: "4px", font: "11px sans-serif", color: "#d66" })
  const frame = element("div", { position: "relative", width: "100%", height: "100%", overflow: "hidden" })
  image.alt = "The plan: a row for each section, made from the top down"
  bars.dataset.part = "bars"
  frame.append(box, words)
  return { element: frame, height: HEIGHT, box, bars, picture, image, rows, words }
}

function showPlan(node, drawing, answer) {
  const { box, bars, picture, image, rows, words } = drawing
  words.textContent = answer.error ?? ""
  box.style.visibility = answer.error ? "hidden" : "visible"
  if (answer.error) return
  drawing.height = HEIGHT + (answer.bars.length ? BARS : 0)
  picture.style.maxHeight = `${(MOST_STRETCHED * answer.height) / SHARPNESS}px`
  image.src = answer.image
  image.title = answer.length
  bars.style.height = `${answer.bars.length ? BARS - 1 : 0}px`
  showBars(bars, answer.bars, answer.colours.ink)
  rows.replaceChildren(...answer.rows.map(row => rowOf(row, answer.height)))
}

function rowOf({ section, top, bottom, text }, height) {
  const row = element("div", { position: "absolute", left: "0", right: "0", boxSizing: "border-box" })
  Object.assign(row.style, { top: percent(top / height), height: percent((bottom - top) / height) })
  row.title = text
  row.dataset.section = section
  return row
}

/** While a sampler runs: what is finished is ticked off at the row's left edge, and what is being made has a frame. */
function showProgress({ node: path, finished, current }) {
  const plan = SAMPLERS.includes(findNode(path)?.type) ? sourceOf(path, "plan") : undefined
  const drawing = plan && drawings.get(findNode(plan))
  for (const row of drawing?.rows.children ?? []) {
    const section = Number(row.dataset.section)
    row.dataset.state = section === current ? "current" : finished.includes(section) ? "finished" : ""
    row.style.borderLeft = row.dataset.state === "finished" ? "6px solid #4caf50" : ""
    row.style.outline = row.dataset.state === "current" ? "2px solid #fff" : ""
    row.style.outlineOffset = "-2px"
  }
}
