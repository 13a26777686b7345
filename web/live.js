// Drawings in nodes that follow the graph while it is changed. The server draws: framepack_core/comfyui/live.py.
// Without these scripts graphs run the same.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { pathOf, promptOf } from "./graph.js"

const WAIT = 120 // milliseconds without a change before the server is asked
const MARGIN = 10 // units of the canvas around a drawing in a node that is drawn on it
export const SHARPNESS = 2 // pixels of a drawing for each unit of the node's width

/**
 * An extension that adds a drawing to each node of a type, and shows what the server answers whenever something has changed.
 *
 * `name` is the drawing's. `make(node)` returns the drawing: an object with its `element`, its `height` in units of the canvas, and
 * whether it is `fixed` or may be higher. `show(node, drawing, answer)` fills it. While it is `held`, nothing is asked. Until it
 * shows what the graph is now, its element is busy. Returns the drawings by node.
 */
export function drawInNodes({ name, type, make, show, setup }) {
  const drawings = new Map()

  /** Ask for a node's drawing once nothing has changed for a moment, and show it unless another change came first. */
  function refresh(node) {
    const drawing = drawings.get(node)
    clearTimeout(drawing?.timer)
    if (!drawing) return
    drawing.element.ariaBusy = "true"
    drawing.timer = setTimeout(() => draw(node, drawing), WAIT)
  }

  async function draw(node, drawing) {
    drawing.timer = undefined
    const path = drawings.has(node) && !drawing.held ? pathOf(node) : undefined
    if (path === undefined) return
    const body = JSON.stringify({ prompt: promptOf(), node: path, width: Math.round(node.size[0] * SHARPNESS), light: isLight() })
    if (body !== drawing.asked) {
      drawing.asked = body
      const answer = await ask(name, body)
      if (drawing.asked !== body) return // a newer one follows
      if (answer.failed || drawing.held) drawing.asked = undefined // the next change asks again
      if (drawing.held) return
      show(node, drawing, answer)
      makeRoom(node, drawing)
      drawing.shown = body
    }
    if (drawing.shown === body && !drawing.timer) drawing.element.ariaBusy = "false"
  }

  function refreshAll() {
    for (const node of drawings.keys()) refresh(node)
  }

  app.registerExtension({
    name: `FramePack.Live.${name}`,
    setup() {
      api.addEventListener("graphChanged", refreshAll)
      new MutationObserver(refreshAll).observe(document.documentElement, { attributeFilter: ["class"] }) // the theme
      setup?.()
    },
    nodeCreated(node) {
      if (node.comfyClass !== type) return
      const drawing = make(node)
      drawing.refresh = () => refresh(node)
      addWidget(node, `framepack_${name}`, drawing)
      drawings.set(node, drawing)
      chain(node, "onRemoved", () => drawings.delete(node))
      chain(node, "onWidgetChanged", drawing.refresh)
      refresh(node)
    },
  })
  return drawings
}

export function element(tag, style, ...children) {
  const made = document.createElement(tag)
  Object.assign(made.style, style)
  made.append(...children)
  return made
}

/** Prompts in time, as bars on a line of the given element. Their words are text, whatever is in them. */
export function showBars(line, bars, ink) {
  line.replaceChildren(...bars.map((bar, number) => {
    const made = element("div", {
      position: "absolute", top: "0", bottom: "0", left: percent(bar.left), width: `max(1px, ${percent(bar.right - bar.left)} - 1px)`,
      boxSizing: "border-box", overflow: "hidden", textIndent: "6px", borderRadius: "3px", whiteSpace: "nowrap",
      textOverflow: "ellipsis", color: ink, background: ground(bar, bars[number - 1]),
    }, bar.words)
    made.title = bar.title
    return made
  }))
}

export function percent(share) {
  return `${100 * share}%`
}

/** Call `then` after what the object does already. */
export function chain(object, name, then) {
  const before = object[name]
  object[name] = function (...values) {
    const result = before?.apply(this, values)
    then()
    return result
  }
}

/** The colour of a bar; while it comes in, from that of the bar before. */
function ground({ left, right, colour, fade }, before) {
  return fade && before ? `linear-gradient(to right, ${before.colour}, ${colour} ${percent(fade / (right - left))})` : colour
}

function isLight() {
  return !document.documentElement.classList.contains("dark-theme")
}

/** What the server answers; in words if it does not answer as it should. */
async function ask(name, body) {
  try {
    const response = await api.fetchApi(`/framepack/${name}`, { method: "POST", body, headers: { "Content-Type": "application/json" } })
    return await response.json()
  } catch (error) {
    return { error: `The ${name} cannot be drawn: ${error.message}`, failed: true }
  }
}

/** A widget that is neither in prompts nor in saved workflows. */
function addWidget(node, name, drawing) {
  const height = () => drawing.height + 2 * MARGIN
  const limits = { getMinHeight: height, ...(drawing.fixed && { getMaxHeight: height }) }
  const options = { ...limits, margin: MARGIN, hideOnZoom: false, serialize: false }
  node.addDOMWidget(name, name, drawing.element, options).serialize = false
}

/** Nodes on a canvas ask the widget for its height, nodes that are elements of the page its element. */
function makeRoom(node, { element, height }) {
  element.style.minHeight = `${height}px`
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
  node.setDirtyCanvas(true, true)
}
