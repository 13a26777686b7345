"""What the templates do, in pictures: their thumbnails, and those of help pages. The demo's models make what they show, through
a server. Run by scripts/pictures.py.

    for path, draw in PICTURES.items():
        draw(Reels(server)).save(path)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from experiments.benchmarks.frames import SECTION, START, WAYS, Piece, Way, made, node, prompt_of
from experiments.pictures.sheet import sheet
from framepack_core.demo.world import FPS, LORA_MOTION, Scene
from framepack_core.drawing.marks import typeface
from framepack_core.drawing.painting import draw_plan
from framepack_core.drawing.palette import DARK, LIGHT, Colour
from framepack_core.frames import PIXEL_FRAMES
from framepack_core.plan import PROMPTS, Plan
from scripts.support.environment import ROOT
from scripts.support.server import Prompt, Server

SIDE = 800  # of a thumbnail
HEADING = 190  # of them, in which the title is
WIDE = 720  # of a help page's picture
GROUND: Colour = (24, 25, 29)  # of thumbnails
GIVEN: Colour = (255, 255, 255)  # the edge of what is given, on GROUND
MADE: Colour = LIGHT.generated
WRONG: Colour = (226, 50, 40)
THEN: Colour = (30, 130, 84)  # what is told later
EDGE, GAP = 5, 8
TITLE, SUBTITLE, CAPTION = 58, 34, 26
LORA = ROOT / "framepack_core" / "demo" / "weights" / "demo_lora.safetensors"

A, B = SECTION + 1, SECTION + 1 + PIXEL_FRAMES
MIDDLE = Piece("time", A, B, still=True)
LAST = Piece("end", B + SECTION, B + SECTION + PIXEL_FRAMES, still=True)
KEYFRAMES = Way("keyframes", (A, B, B + SECTION), (START, MIDDLE, LAST))
KEY_FRAMES, KEY_TIMES = (0, A + 2, B + SECTION + 2), (0.0, A / FPS, (B + SECTION) / FPS)
KEY_LATENTS = (0, 10, 20)
WHOLE = Way("image to video", (A,), (START,), made=4)
SHORT = replace(WHOLE, made=2)
ENDS, EXTENDED = (next(way for way in WAYS if way.name == name) for name in ("first and last frame", "a clip is continued"))
INDICES = 1, 3, 5, 7  # of single pictures
AGAIN = 3  # of the start image and four sections, in the order of time; the section that an inverted video makes as its second

# Scenes that training never saw, by seed, and what their shapes do.
GROWS = 2_000_002, "grow"
PASSES = 2_000_022, "down"
LEARNT = 2_000_006, LORA_MOTION
BECOMES = 2_000_038, "down"
CHANGES, CHANGE = ((2_000_038, "stop"), (2_000_038, "down")), 2.4  # seconds


@dataclass(frozen=True)
class Reels:
    """Videos that a server makes, uint8 `F 128 128 3`, each when it is first wanted."""

    server: Server
    steps: int = 25

    @cached_property
    def demo(self) -> np.ndarray:
        return self.made(WHOLE, scene(*GROWS))

    @cached_property
    def extended(self) -> np.ndarray:
        return self.made(EXTENDED, scene(*GROWS), "forward")

    @cached_property
    def ends(self) -> np.ndarray:
        return self.made(ENDS, scene(*PASSES))

    @cached_property
    def keyframes(self) -> np.ndarray:
        return self.made(KEYFRAMES, scene(*PASSES))

    @cached_property
    def redone(self) -> np.ndarray:
        return self.made(replace(WHOLE, again=True), scene(*GROWS))

    @cached_property
    def without_lora(self) -> np.ndarray:
        return self.made(SHORT, scene(*LEARNT))

    @cached_property
    def with_lora(self) -> np.ndarray:
        prompt = self.prompt(SHORT, scene(*LEARNT))
        folder = self.server.base / "models" / "loras"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(LORA, folder)
        prompt["lora"] = node("FramePack_LoadLora", model=["demo", 0], lora_name=LORA.name, strength=1.0)
        prompt["sampler"]["inputs"]["model"] = ["lora", 0]
        return made(self.server, prompt)

    @cached_property
    def timed(self) -> np.ndarray:
        first, second = (scene(*told).caption for told in CHANGES)
        prompt = self.prompt(WHOLE, scene(*CHANGES[0]), "forward")
        prompt["text"] = node("FramePack_PromptTimeline", clip=["demo", 1], text=f"{first} [{CHANGE}s: {second}]")
        prompt["plan"]["inputs"]["parts"] = PROMPTS
        return made(self.server, prompt)

    @cached_property
    def becoming(self) -> np.ndarray:
        """The still that FramePack One Frame is given, and what it makes of it at each of `INDICES`."""
        told = scene(*BECOMES)
        return np.concatenate([told.render(1), *(made(self.server, self.one_frame(told, index)) for index in INDICES)])

    def one_frame(self, told: Scene, index: int) -> Prompt:
        """As a video of a single frame."""
        prompt = self.prompt(SHORT, told)
        inputs = prompt["sampler"]["inputs"]
        del inputs["plan"], inputs["resume"]
        prompt["sampler"] = node("FramePack_OneFrame", **inputs, target_index=index, history="full")
        return prompt

    def made(self, way: Way, told: Scene, order: str = "inverted") -> np.ndarray:
        return made(self.server, self.prompt(way, told, order))

    def prompt(self, way: Way, told: Scene, order: str = "inverted") -> Prompt:
        return prompt_of(self.server, way, order, told, told.render(way.frames + SECTION), 1, self.steps)


def scene(seed: int, motion: str) -> Scene:
    return Scene.draw(seed).with_motion(motion, seed)


# Thumbnails of templates


def demo(reels: Reels) -> Image.Image:
    return sheet([Image.fromarray(frame) for frame in reels.demo], columns=3, rows=3, scale=2)


def extend(reels: Reels) -> Image.Image:
    pictures = extended_pictures(reels, GIVEN, ("yours", "new"))
    return thumbnail("Extend a video", "it goes on where yours ends", strip(pictures[1:2], 230), strip(pictures), arrow())


def first_and_last(reels: Reels) -> Image.Image:
    first, *between, last = evenly(reels.ends, 5)
    given = [Picture(first, GIVEN), Picture(last, GIVEN)]
    between = [Picture(frame, MADE) for frame in between]
    pictures = strip([given[0], *between, given[1]])
    return thumbnail("First and last frame", "what happens between two pictures", strip(given, 230), pictures, arrow())


def keyframes(reels: Reels) -> Image.Image:
    first, one, second, other, third = keyframe_pictures(reels, GIVEN, [f"{seconds:.1f} s" for seconds in KEY_TIMES], "")
    given = [replace(picture, caption="") for picture in (first, second, third)]
    return thumbnail(
        "Keyframes", "pictures at times that you choose", strip(given, 220), strip([first, one, second, other, third])
    )


def redo(reels: Reels) -> Image.Image:
    before = [Picture(frame, DARK.faint, crossed=place == AGAIN) for place, frame in enumerate(by_section(reels.demo))]
    after = [Picture(frame, MADE if place == AGAIN else DARK.faint) for place, frame in enumerate(by_section(reels.redone))]
    return thumbnail("Redo a section", "the rest stays as it is", strip(before), arrow(down=True), strip(after))


def lora(reels: Reels) -> Image.Image:
    without, with_it = (evenly(frames, 5) for frames in (reels.without_lora, reels.with_lora))
    return thumbnail(
        "LoRA",
        "a motion that the model does not know",
        line(f"“{scene(*LEARNT).caption}”", CAPTION, DARK.ink),
        strip([Picture(frame, DARK.faint) for frame in without]),
        line("+ LoRA", SUBTITLE, DARK.ink),
        strip([Picture(frame, MADE) for frame in with_it]),
    )


def timed(reels: Reels) -> Image.Image:
    seconds = range(5)
    edges = [THEN if second >= CHANGE else DARK.ink for second in seconds]
    pictures = [Picture(reels.timed[second * FPS], edge, f"{second} s") for second, edge in zip(seconds, edges, strict=True)]
    first, then = (scene(*told).caption for told in CHANGES)
    return thumbnail(
        "Timed prompts",
        "one text, each part at its time",
        line(f"“{first}”", CAPTION, DARK.ink),
        strip(pictures),
        line(f"[{CHANGE}s: “{then}”]", CAPTION, THEN),
    )


def thumbnail(title: str, subtitle: str, *blocks: Image.Image) -> Image.Image:
    heading = stacked([line(title, TITLE, DARK.ink), line(subtitle, SUBTITLE, DARK.faint)], GROUND, (SIDE, HEADING))
    rest = stacked(blocks, GROUND, (SIDE, SIDE - HEADING))
    return stacked([heading, rest], GROUND, (SIDE, SIDE))


# Pictures of help pages


def extend_page(reels: Reels) -> Image.Image:
    return stacked([strip(extended_pictures(reels, LIGHT.ink, ("before", "latent")))], LIGHT.paper, (WIDE, 200))


def place_page(reels: Reels) -> Image.Image:
    pictures = keyframe_pictures(reels, LIGHT.ink, ["at start", "at a time", "at end"], "made")
    plan = wide_plan(Plan.of(KEYFRAMES.made * SECTION / FPS), KEY_LATENTS)
    return stacked([strip(pictures), plan], LIGHT.paper, (WIDE, 220 + plan.height))


def redo_page(reels: Reels) -> Image.Image:
    names = ["start", "section 4", "section 3", "section 2", "section 1"]
    before = [
        Picture(frame, LIGHT.faint, name, crossed=place == AGAIN)
        for place, (frame, name) in enumerate(zip(by_section(reels.demo), names, strict=True))
    ]
    after = [
        Picture(frame, MADE, "new") if place == AGAIN else Picture(frame, LIGHT.faint, "the same")
        for place, frame in enumerate(by_section(reels.redone))
    ]
    return stacked([strip(before), arrow(down=True), strip(after)], LIGHT.paper, (WIDE, 460))


def one_frame_page(reels: Reels) -> Image.Image:
    still, *pictures = reels.becoming
    shown = [Picture(frame, MADE, f"index {index}") for frame, index in zip(pictures, INDICES, strict=True)]
    told = line(f"“{scene(*BECOMES).caption}”", CAPTION, LIGHT.ink)
    return stacked([told, strip([Picture(still, LIGHT.ink, "the still"), *shown])], LIGHT.paper, (WIDE, 250))


def text_page(reels: Reels) -> Image.Image:
    """Only the plan: the demo's models were not trained for it."""
    plan = wide_plan(Plan.of(3 * SECTION / FPS), ())
    return stacked([line("a prompt, and nothing else", CAPTION, LIGHT.ink), plan], LIGHT.paper, (WIDE, 80 + plan.height))


def wide_plan(plan: Plan, known: tuple[int, ...]) -> Image.Image:
    drawn = draw_plan(plan, known=known)
    return drawn.resize((WIDE, round(drawn.height * WIDE / drawn.width)), Image.Resampling.LANCZOS)


PICTURES: Mapping[str, Callable[[Reels], Image.Image]] = {
    "example_workflows/FramePack demo.jpg": demo,
    "example_workflows/FramePack extend a video.jpg": extend,
    "example_workflows/FramePack first and last frame.jpg": first_and_last,
    "example_workflows/FramePack keyframes.jpg": keyframes,
    "example_workflows/FramePack redo a section.jpg": redo,
    "example_workflows/FramePack LoRA.jpg": lora,
    "example_workflows/FramePack timed prompts.jpg": timed,
    "web/docs/extend.webp": extend_page,
    "web/docs/place.webp": place_page,
    "web/docs/redo.webp": redo_page,
    "web/docs/one_frame.webp": one_frame_page,
    "web/docs/text.webp": text_page,
}


# Frames


@dataclass(frozen=True)
class Picture:
    """A frame `H W 3` with a coloured edge, and a caption in its colour; crossed out if it is not to stay."""

    frame: np.ndarray
    edge: Colour
    caption: str = ""
    crossed: bool = False


def evenly(frames: np.ndarray, count: int) -> list[np.ndarray]:
    return list(frames[np.linspace(0, len(frames) - 1, count).round().astype(int)])


def by_section(frames: np.ndarray) -> list[np.ndarray]:
    """The start image and the middle of each section."""
    return [frames[0], *frames[1 + SECTION // 2 :: SECTION]]


def extended_pictures(reels: Reels, given: Colour, names: tuple[str, str]) -> list[Picture]:
    before, after = reels.extended[:A], reels.extended[A:]
    shown = [Picture(frame, given, names[0]) for frame in (before[0], before[-1])]
    return shown + [Picture(frame, MADE, names[1]) for frame in evenly(after, 4)[1:]]


def keyframe_pictures(reels: Reels, given: Colour, names: Sequence[str], between: str) -> list[Picture]:
    """What is given, and the middle of the section between each and the next."""
    first, second, third = (Picture(reels.keyframes[at], given, name) for at, name in zip(KEY_FRAMES, names, strict=True))
    one, other = (Picture(reels.keyframes[begin + SECTION // 2], MADE, between) for begin in (1, B))
    return [first, one, second, other, third]


# Drawing


def strip(pictures: Sequence[Picture], side: int = 132) -> Image.Image:
    """The pictures in a row, each `side` pixels wide with its edge."""
    captions = any(picture.caption for picture in pictures)
    row = Image.new("RGBA", (len(pictures) * (side + GAP) - GAP, side + (CAPTION + GAP if captions else 0)))
    draw = ImageDraw.Draw(row)
    for place, picture in enumerate(pictures):
        left, inner = place * (side + GAP), side - 2 * EDGE
        draw.rectangle((left, 0, left + side - 1, side - 1), picture.edge)
        row.paste(Image.fromarray(picture.frame).resize((inner, inner), Image.Resampling.BICUBIC), (left + EDGE, EDGE))
        if picture.crossed:
            for ends in ((EDGE, side - EDGE), (side - EDGE, EDGE)):
                draw.line((left + ends[0], EDGE, left + ends[1], side - EDGE), WRONG, 2 * EDGE)
        draw.text((left + side // 2, side + CAPTION), picture.caption, picture.edge, typeface(CAPTION - 4), anchor="ms")
    return row


def arrow(down: bool = False) -> Image.Image:
    """In the colour of what is made: along a strip of frames, or from one down to the next."""
    length, width, head = (56, 44, 26) if down else (520, 44, 34)
    image = Image.new("RGBA", (length, width))
    draw = ImageDraw.Draw(image)
    middle = width // 2
    draw.line((0, middle, length - head, middle), MADE, 2 * EDGE)
    draw.polygon([(length - head, 0), (length - 1, middle), (length - head, width - 1)], MADE)
    return image.rotate(-90, expand=True) if down else image


def line(text: str, size: int, colour: Colour) -> Image.Image:
    font = typeface(size)
    image = Image.new("RGBA", (round(font.getlength(text)) + 2, round(1.3 * size)))
    ImageDraw.Draw(image).text((1, image.height // 2), text, colour, font, anchor="lm")
    return image


def stacked(blocks: Sequence[Image.Image], ground: Colour, size: tuple[int, int]) -> Image.Image:
    """The blocks below each other on a ground of this size (width, height), with equal room above, between and below them."""
    whole = Image.new("RGB", size, ground)
    room = (size[1] - sum(block.height for block in blocks)) / (len(blocks) + 1)
    top = room
    for block in blocks:
        whole.paste(block, ((size[0] - block.width) // 2, round(top)), block if block.mode == "RGBA" else None)
        top += block.height + room
    return whole
