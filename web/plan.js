// Shows the drawing of a plan in its own node while it is changed, and fills it in while a sampler runs.
// The server draws: framepack_core/comfyui/live_plan.py. Without this script graphs run the same.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { findNode } from "./framepack.js"

const WIDGET = "framepack_plan"
const HEIGHT = 56 // units of the canvas, at least
const SHARPNESS = 2 // pixels of the picture for each unit of the node's width
const MOST_STRETCHED = 2 // how many times as high as it is drawn the picture may be
const WAIT = 120 // milliseconds without a change before the server is asked
const NEVER = 2 // the mode of a muted node
const SAMPLERS = ["FramePack_Sampler", "FramePack_SamplerCustom"]

const drawings = new Map() // plan nodes and what is shown in them

app.registerExtension({
  name: "FramePack.Plan",
  setup() {
    api.addEventListener("graphChanged", refreshAll)
    api.addEventListener("framepack.sections", ({ detail }) => showProgress(detail))
    new MutationObserver(refreshAll).observe(document.documentElement, { attributeFilter: ["class"] }) // the theme
  },
  nodeCreated(node) {
    if (node.comfyClass !== "FramePack_Plan") return
    const drawing = addDrawing(node)
    drawings.set(node, drawing)
    chain(node, "onRemoved", () => drawings.delete(node))
    chain(node, "onWidgetChanged", () => refresh(node))
    refresh(node)
  },
})

function refreshAll() {
  for (const node of drawings.keys()) refresh(node)
}

/** Ask for the node's drawing once nothing has changed for a moment, and show it unless another change came first. */
function refresh(node) {
  const drawing = drawings.get(node)
  clearTimeout(drawing?.timer)
  if (drawing) drawing.timer = setTimeout(() => draw(node, drawing), WAIT)
}

async function draw(node, drawing) {
  if (!node.graph || !drawings.has(node)) return
  const body = JSON.stringify({
    prompt: promptOf(node.graph),
    node: String(node.id),
    width: Math.round(node.size[0] * SHARPNESS),
    light: !document.documentElement.classList.contains("dark-theme"),
  })
  if (body === drawing.asked) return
  drawing.asked = body
  const answer = await ask(body)
  if (drawing.asked === body) show(node, drawing, answer)
  if (answer.failed) drawing.asked = undefined // the next change asks again
}

/** What the server answers; in words if it does not answer as it should. */
async function ask(body) {
  try {
    const response = await api.fetchApi("/framepack/plan", { method: "POST", body, headers: { "Content-Type": "application/json" } })
    return await response.json()
  } catch (error) {
    return { error: `The plan cannot be drawn: ${error.message}`, failed: true }
  }
}

/** What the server needs of a graph, in the form of an API prompt: our nodes, and what is connected to them. */
function promptOf(graph) {
  const nodes = graph.nodes.filter(node => node.mode !== NEVER)
  return Object.fromEntries(nodes.map(node => [node.id, { class_type: node.type, inputs: inputsOf(node, graph) }]))
}

function inputsOf(node, graph) {
  const widgets = (node.widgets ?? []).filter(({ options, value }) => options?.serialize !== false && isPlain(value))
  const inputs = Object.fromEntries(widgets.map(({ name, value }) => [name, value]))
  for (const input of node.inputs ?? []) {
    const source = sourceOf(input.link, graph)
    if (source) inputs[input.name] = source
  }
  return inputs
}

function isPlain(value) {
  return ["number", "string", "boolean"].includes(typeof value)
}

/** The `[node, slot]` that a link comes from, through reroutes; the value of a primitive, which exists in the front end only. */
function sourceOf(id, graph) {
  const link = id == null ? undefined : graph.getLink?.(id) ?? graph.links.get?.(id) ?? graph.links[id]
  const origin = link && graph.getNodeById(link.origin_id)
  if (!origin || origin.mode === NEVER) return undefined
  if (origin.type === "Reroute") return sourceOf(origin.inputs[0].link, graph)
  if (origin.type === "PrimitiveNode") return origin.widgets?.[0]?.value
  return [String(origin.id), link.origin_slot]
}

function addDrawing(node) {
  const frame = element("div", { position: "relative", width: "100%", height: "100%", minHeight: `${HEIGHT}px`, overflow: "hidden" })
  const box = element("div", { position: "relative", width: "100%", height: "100%" })
  const image = element("img", { position: "absolute", inset: "0", width: "100%", height: "100%", objectFit: "fill" })
  const rows = element("div", { position: "absolute", inset: "0" })
  const words = element("div", { position: "absolute", inset: "0", padding: "4px", font: "11px sans-serif", color: "#d66" })
  image.alt = "The plan: a row for each section, made from the top down"
  box.append(image, rows)
  frame.append(box, words)
  const widget = node.addDOMWidget(WIDGET, "plan", frame, { getMinHeight: () => HEIGHT, hideOnZoom: false, serialize: false })
  widget.serialize = false // neither in prompts nor in saved workflows
  return { box, image, rows, words, timer: undefined, asked: undefined }
}

function show(node, { box, image, rows, words }, { error, image: source, height, length, rows: sections }) {
  words.textContent = error ?? ""
  box.style.visibility = error ? "hidden" : "visible"
  if (error) return
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
  box.style.maxHeight = `${(MOST_STRETCHED * height) / SHARPNESS}px`
  image.src = source
  image.title = length
  rows.replaceChildren(...sections.map(({ section, top, bottom, text }) => {
    const row = element("div", { position: "absolute", left: "0", right: "0", boxSizing: "border-box" })
    Object.assign(row.style, { top: `${(100 * top) / height}%`, height: `${(100 * (bottom - top)) / height}%` })
    row.title = text
    row.dataset.section = section
    return row
  }))
}

/** While a sampler runs: what is finished is ticked off at the row's left edge, and what is being made has a frame. */
function showProgress({ node: path, finished, current }) {
  const sampler = findNode(path)
  const link = sampler?.inputs?.find(({ name }) => name === "plan")?.link
  const source = SAMPLERS.includes(sampler?.type) ? sourceOf(link, sampler.graph) : undefined
  const drawing = source && drawings.get(sampler.graph.getNodeById(source[0]))
  for (const row of drawing?.rows.children ?? []) {
    const section = Number(row.dataset.section)
    row.dataset.state = section === current ? "current" : finished.includes(section) ? "finished" : ""
    row.style.borderLeft = row.dataset.state === "finished" ? "6px solid #4caf50" : ""
    row.style.outline = row.dataset.state === "current" ? "2px solid #fff" : ""
    row.style.outlineOffset = "-2px"
  }
}

function element(tag, style) {
  const made = document.createElement(tag)
  Object.assign(made.style, style)
  return made
}

/** Call `then` after what the node does already. */
function chain(node, name, then) {
  const before = node[name]
  node[name] = function (...values) {
    const result = before?.apply(this, values)
    then()
    return result
  }
}
