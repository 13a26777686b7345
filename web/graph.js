// What the server needs of a graph that has not run, in the form of an API prompt: all nodes that count, subgraphs included.
// The front end's own `graphToPrompt` is for queueing: it lets widgets prepare their values, which takes pictures and uploads.

import { app } from "../../scripts/app.js"

const NEVER = 2 // the mode of a muted node
const BYPASS = 4
const OUTSIDE = -10 // what a link in a subgraph comes from if it comes from outside

/** A node by its path: "12:3" is node 3 inside subgraph node 12. */
export function findNode(path) {
  let graph = root()
  let node
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById(id)
    graph = node?.subgraph
  }
  return node
}

/** The path of a node, or undefined if it is muted or not in the graph that is shown. */
export function pathOf(node) {
  return places().find(place => place.node === node)?.path
}

export function promptOf() {
  return Object.fromEntries(places().map(place => [place.path, { class_type: place.node.type, inputs: inputsOf(place) }]))
}

/** The path of the node that is connected to an input. */
export function sourceOf(path, name) {
  const place = places().find(place => place.path === path)
  const input = place?.node.inputs?.find(input => input.name === name)
  const source = input && comesFrom(input.link, place.scope)
  return Array.isArray(source) ? source[0] : undefined
}

function root() {
  return app.rootGraph ?? app.graph
}

/** Nodes with their paths. The scope of a node is its graph, and for one in a subgraph the node that holds it and its scope. */
function places(scope = { graph: root(), prefix: "" }) {
  return scope.graph.nodes.filter(({ mode }) => mode !== NEVER && mode !== BYPASS).flatMap(node =>
    node.subgraph ? places(within(node, scope)) : [{ node, scope, path: scope.prefix + node.id }])
}

function within(holder, outer) {
  return { graph: holder.subgraph, prefix: `${outer.prefix}${holder.id}:`, holder, outer }
}

function inputsOf({ node, scope }) {
  const widgets = (node.widgets ?? []).filter(({ options, value }) => options?.serialize !== false && isPlain(value))
  const inputs = Object.fromEntries(widgets.map(({ name, value }) => [name, value]))
  for (const { name, link } of node.inputs ?? []) {
    const source = comesFrom(link, scope)
    if (source !== undefined) inputs[name] = source
  }
  return inputs
}

function isPlain(value) {
  return ["number", "string", "boolean"].includes(typeof value)
}

/** The `[path, slot]` that a link comes from, or a value that exists in the front end only. */
function comesFrom(id, scope) {
  const link = id == null ? undefined : scope.graph.getLink?.(id) ?? scope.graph.links.get?.(id) ?? scope.graph.links[id]
  if (!link) return undefined
  if (Number(link.origin_id) === OUTSIDE) return comesFromOutside(link.origin_slot, scope)
  const origin = scope.graph.getNodeById(link.origin_id)
  return origin ? given(origin, link.origin_slot, scope) : undefined
}

/** What an output gives: through reroutes, bypassed nodes and subgraphs, what is behind them. */
function given(node, slot, scope) {
  if (node.mode === NEVER) return undefined
  if (node.mode === BYPASS) return comesFrom(passing(node, slot)?.link, scope)
  if (node.type === "Reroute") return comesFrom(node.inputs[0].link, scope)
  if (node.type === "PrimitiveNode") return node.widgets?.[0]?.value
  if (node.subgraph) return comesFrom(node.subgraph.outputs[slot]?.linkIds[0], within(node, scope))
  return [scope.prefix + node.id, slot]
}

/** The input that a bypassed node passes on. */
function passing(node, slot) {
  const { type } = node.outputs[slot]
  return node.inputs[slot]?.type === type ? node.inputs[slot] : node.inputs.find(input => input.type === type)
}

function comesFromOutside(slot, { holder, outer }) {
  const input = holder.inputs[slot]
  if (input?.link != null) return comesFrom(input.link, outer)
  const value = holder.widgets?.find(({ name }) => name === input?.name)?.value
  return isPlain(value) ? value : undefined
}
