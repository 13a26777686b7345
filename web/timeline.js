// The ruler under the text of a Prompt Timeline: a bar for each prompt, with borders that can be moved.
// The text stays the truth. The server says which of its characters are times; moving a border replaces those, and nothing else.

import { app } from "../../scripts/app.js"
import { chain, drawInNodes, element, percent, showBars } from "./live.js"

const HEIGHT = 46 // units of the canvas
const MOST_WORDS = 51 // units, for lines below it or in its place
const HINT = "[2s: it jumps] says what happens from 2 seconds on"
const NEAR = 5 // pixels of the screen within which a border snaps to a section
const SAME = 0.002 // seconds that two times of the same border may differ by

drawInNodes({ name: "prompts", type: "FramePack_PromptTimeline", make: makeRuler, show: showRuler })

// What is shown

function makeRuler(node) {
  const line = (top, height) => element("div", { position: "absolute", left: "0", right: "0", top: `${top}px`, height: `${height}px` })
  const axis = line(0, 14), bars = line(15, 22), sections = line(39, 6), handles = line(13, 34)
  const value = element("div", { position: "absolute", top: "0", padding: "0 3px", borderRadius: "2px", visibility: "hidden" })
  const scale = element("div", { position: "relative", height: `${HEIGHT}px` }, axis, bars, sections, handles, value)
  const words = element("div", {
    boxSizing: "border-box", padding: "3px 0 0", overflow: "hidden", whiteSpace: "pre-line", maxHeight: `${MOST_WORDS}px`,
  })
  const frame = element("div", { width: "100%", height: "100%" }, scale, words)
  bars.style.font = "11px/22px sans-serif"
  axis.style.whiteSpace = value.style.whiteSpace = "nowrap"
  axis.style.font = words.style.font = value.style.font = "10px/12px sans-serif"
  sections.style.fontSize = "0"
  for (const [part, made] of Object.entries({ axis, bars, sections, handles, words })) made.dataset.part = part
  handles.style.pointerEvents = "none"
  const ruler = {
    element: frame, height: HEIGHT, fixed: true, scale, axis, bars, sections, handles, value, words,
    answer: undefined, moved: undefined, held: false,
  }
  chain(textOf(node), "callback", () => ruler.refresh())
  return ruler
}

function showRuler(node, ruler, answer) {
  const { error, later } = answer
  if (!error && !later && !isLinked(node) && answer.text !== textOf(node).value) return // a newer one follows
  Object.assign(ruler, { answer: error || later ? undefined : answer, moved: undefined })
  ruler.words.textContent = error ?? (later ? "The text comes from another node." : answer.notes.join("\n"))
  ruler.words.title = ruler.words.textContent
  ruler.words.style.color = error ? "#d66" : answer.colours?.faint ?? "#888"
  ruler.scale.style.display = ruler.answer ? "" : "none"
  ruler.height = Math.max(HEIGHT, (ruler.answer ? HEIGHT : 0) + ruler.words.scrollHeight)
  if (ruler.answer) showAll(node, ruler)
}

function showAll(node, ruler) {
  const { answer } = ruler
  ruler.axis.replaceChildren(...answer.ticks.map(second => tick(second, answer)))
  showBars(ruler.sections, answer.sections, answer.colours.ink)
  showMoved(node, ruler)
}

function tick(second, { seconds, colours }) {
  const share = second / seconds
  return element("div", { position: "absolute", left: percent(share), transform: shiftAt(share), color: colours.faint }, `${second} s`)
}

/** What keeps a label that is centred within the ruler. */
function shiftAt(share) {
  return `translateX(${share < 0.04 ? "0" : share > 0.94 ? "-100%" : "-50%"})`
}

/** The bars and borders, with the border that has been moved since the server answered where it is now. */
function showMoved(node, ruler) {
  const { answer, moved } = ruler
  const bars = answer.text.trim() ? answer.bars.map(bar => movedBar(bar, answer, moved)) : [{ ...answer.bars[0], words: HINT }]
  showBars(ruler.bars, bars, answer.colours.ink)
  const borders = isLinked(node) ? [] : answer.borders
  while (ruler.handles.children.length > borders.length) ruler.handles.lastChild.remove()
  while (ruler.handles.children.length < borders.length) ruler.handles.append(makeHandle(node, ruler, ruler.handles.children.length))
  borders.forEach((border, number) => placeHandle(ruler, ruler.handles.children[number], border, number))
  showValue(ruler)
}

function movedBar(bar, { seconds, borders }, moved) {
  if (!moved) return bar
  const from = borders[moved.number].seconds
  const follow = share => (Math.abs(share * seconds - from) < SAME ? moved.seconds / seconds : share)
  return { ...bar, left: follow(bar.left), right: follow(bar.right) }
}

function makeHandle(node, ruler, number) {
  const handle = element("div", {
    position: "absolute", top: "0", bottom: "0", width: "9px", marginLeft: "-4.5px", cursor: "ew-resize", pointerEvents: "auto",
    touchAction: "none", borderRadius: "3px",
  }, element("div", { position: "absolute", inset: "0 3px", borderRadius: "2px" }))
  handle.tabIndex = 0
  setAttributes(handle, { role: "slider", "aria-label": "border between prompts, in seconds" })
  handle.addEventListener("focus", () => showValue(ruler))
  handle.addEventListener("blur", () => showValue(ruler))
  handle.addEventListener("pointerdown", event => drag(node, ruler, number, event))
  handle.addEventListener("keydown", event => step(node, ruler, number, event))
  handle.addEventListener("keyup", event => event.key in STEPS && remember())
  return handle
}

function placeHandle({ answer, moved }, handle, border, number) {
  const seconds = secondsOf(number, { answer, moved })
  handle.style.left = percent(Math.min(Math.max(seconds / answer.seconds, 0), 1))
  handle.firstChild.style.background = answer.colours.ink
  handle.title = `${spell(seconds)} s`
  const range = { "aria-valuemin": border.least, "aria-valuemax": border.most, "aria-valuenow": seconds }
  setAttributes(handle, { ...range, "aria-valuetext": handle.title })
}

/** The seconds of the border that has the focus, above it. */
function showValue({ answer, handles, value }) {
  const handle = [...handles.children].find(handle => handle === document.activeElement)
  value.style.visibility = handle ? "visible" : "hidden"
  if (!handle) return
  const shift = shiftAt(parseFloat(handle.style.left) / 100)
  Object.assign(value.style, { left: handle.style.left, transform: shift, color: answer.colours.paper, background: answer.colours.ink })
  value.textContent = handle.title
}

function secondsOf(number, { answer, moved }) {
  return moved?.number === number ? moved.seconds : answer.borders[number].seconds
}

// What is moved

/** Move a border with the pointer, as one step for undo. */
function drag(node, ruler, number, down) {
  const handle = down.currentTarget
  if (down.button !== 0 || !isFresh(node, ruler, number)) return
  down.preventDefault()
  handle.focus()
  handle.setPointerCapture(down.pointerId)
  ruler.held = true
  const move = event => moveTo(node, ruler, number, secondsAt(ruler, number, event))
  handle.addEventListener("pointermove", move)
  handle.addEventListener("lostpointercapture", () => {
    handle.removeEventListener("pointermove", move)
    ruler.held = false
    remember()
    ruler.refresh()
  }, { once: true })
}

/** Where the pointer is: at a section's border with shift or if it is near one, or else at a tenth of a second. */
function secondsAt({ answer, scale }, number, { clientX, shiftKey }) {
  const { left, width } = scale.getBoundingClientRect()
  const seconds = ((clientX - left) / width) * answer.seconds
  const mark = nearest(seconds, answer.marks)
  const near = Math.abs(mark - seconds) * (width / answer.seconds) <= NEAR
  return mark !== undefined && (shiftKey || near) ? mark : rounded(seconds, number, answer)
}

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity }

/** Move a border with the keyboard: by a tenth of a second, or with shift to the next section or by a second. */
function step(node, ruler, number, event) {
  if (["Delete", "Backspace"].includes(event.key)) event.stopPropagation() // they would delete the node
  if (!(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey) return
  event.preventDefault()
  event.stopPropagation()
  if (!isFresh(node, ruler, number)) return
  const { answer } = ruler
  const seconds = secondsOf(number, ruler)
  const direction = STEPS[event.key]
  moveTo(node, ruler, number, event.shiftKey ? further(seconds, direction, answer) : rounded(seconds + direction * answer.step, number, answer))
}

function further(seconds, direction, { marks }) {
  const ahead = marks.filter(mark => (mark - seconds) * direction > SAME)
  return marks.length ? nearest(seconds, ahead) ?? seconds : seconds + direction
}

function moveTo(node, ruler, number, seconds) {
  const { least, most } = ruler.answer.borders[number]
  ruler.moved = { number, seconds: Math.min(Math.max(seconds, least), most) }
  textOf(node).value = writtenText(ruler)
  showMoved(node, ruler)
}

/** The text with the number of the border that has been moved in the place of the old one. */
function writtenText({ answer, moved }) {
  if (!moved) return answer.text
  return answer.borders[moved.number].numbers.reduceRight((text, { at, until, from_end }) =>
    text.slice(0, at) + spell(moved.seconds - (from_end ? answer.seconds : 0)) + text.slice(until), answer.text)
}

/** Whether the text is still the one that the server has read, but for this border. */
function isFresh(node, ruler, number) {
  const { answer, moved } = ruler
  return answer && (!moved || moved.number === number) && textOf(node).value === writtenText(ruler)
}

/** Tenths of a second as they are written: of those counted from the end, too. */
function rounded(seconds, number, { seconds: end, borders, step }) {
  const origin = borders[number].numbers[0].from_end ? end : 0
  return origin + Math.round((seconds - origin) / step) * step
}

function nearest(seconds, marks) {
  return marks.reduce((best, mark) => (best !== undefined && Math.abs(best - seconds) <= Math.abs(mark - seconds) ? best : mark), undefined)
}

function spell(seconds) {
  return String(Number(seconds.toFixed(2)))
}

/** A step for undo, if something has changed. */
function remember() {
  app.canvas.emitBeforeChange()
  app.canvas.emitAfterChange()
}

function setAttributes(element, values) {
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value)
}

function textOf(node) {
  return node.widgets.find(({ name }) => name === "text")
}

function isLinked(node) {
  return node.inputs.some(({ name, link }) => name === "text" && link != null)
}
