"""A video's measures as a table that people read. What is normal is in docs/measuring.md."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..spelling import aligned
from .sections import Sections
from .series import SHARE, Series, slopes

FIRST = 4  # frames of a section that are compared with its others: those of one latent frame


@dataclass(frozen=True)
class Report:
    """Of a video at `fps` frames a second, whose sections have `window` latent frames."""

    series: Series
    fps: float
    window: int

    @property
    def sections(self) -> Sections:
        return Sections.of(self.series.frames, self.window)

    @property
    def joins(self) -> Tensor:
        """The change into each section after the first, relative to the median into other latent frames."""
        return self.series.joins(self.sections.begins, self.sections.latents)

    def beginning(self, name: str) -> float:
        """A measure in the first frames of the sections that begin at a join, relative to those that follow in them."""
        values = self.series.looks[name][:, 0]
        begins = self.sections.begins
        stops = (*begins[1:], len(values))
        whole = [(begin, stop) for begin, stop in zip(begins, stops, strict=True) if stop > begin + FIRST]
        first = sum(float(values[begin : begin + FIRST].mean()) for begin, _ in whole)
        others = sum(float(values[begin + FIRST : stop].mean()) for begin, stop in whole)
        return first / others if others else 1.0

    def table(self) -> str:
        rows = [("", "start", "end", "change", "a second"), *self._looks(), self._histogram()]
        title, *lines = self.summary()
        return "\n".join([title, "", *aligned(rows, ">"), "", *lines])

    def summary(self) -> list[str]:
        """What the table says in words, for places that do not keep columns apart."""
        return [self._title(), *self._drift(), *self._joins()]

    def _title(self) -> str:
        series, seconds = self.series, self.series.frames / self.fps
        return (
            f"{series.frames} frames of {series.width}x{series.height}, {seconds:.2f} s at {self.fps:g} fps; "
            f"start and end are {SHARE:.0%} of them each"
        )

    def _looks(self) -> list[tuple[str, ...]]:
        """The measures that have a value of their own at the start and at the end."""
        names = (
            ("lightness (0 to 100)", "lab_mean", 0, "{:.1f}"),
            ("green to red", "lab_mean", 1, "{:.1f}"),
            ("blue to yellow", "lab_mean", 2, "{:.1f}"),
            ("contrast (of 255)", "contrast", 0, "{:.1f}"),
            ("sharpness (Laplacian variance)", "laplacian", 0, "{:.1f}"),
            ("fine detail (share of the spectrum)", "high_frequency", 0, "{:.4f}"),
        )
        return [self._look(*name) for name in names]

    def _look(self, title: str, name: str, channel: int, spelled: str) -> tuple[str, ...]:
        start, end = (float(value[channel]) for value in self.series.ends(name))
        slope = float(slopes(self.series.looks[name], self.fps)[channel])
        signed = spelled.replace(":", ":+")
        change = signed.format(end - start)
        if name != "lab_mean" and start:
            change += f" ({(end - start) / start:+.0%})"
        return title, spelled.format(start), spelled.format(end), change, signed.format(slope)

    def _histogram(self) -> tuple[str, ...]:
        apart = self.series.from_start("hsv")
        slope = float(slopes(apart[:, None], self.fps)[0])
        return "colour histogram (0 same, 1 other)", "", "", f"{self.series.drift()['hsv']:.3f}", f"{slope:+.3f}"

    def _drift(self) -> list[str]:
        colour = self.series.drift()["lab_mean"]
        changes = (
            f"{title} {(end - start) / start:+.0%}"
            for title, name in (("contrast", "contrast"), ("sharpness", "laplacian"))
            for start, end in [[float(value) for value in self.series.ends(name)]]
            if start
        )
        return [
            f"drift of the mean colour: {colour:.1f} (distance in Lab; 2.3 can just be seen)",
            f"from start to end: {', '.join(changes) or 'one colour'}",
            f"motion: {self.series.motion:.2f} of 255 a frame; flow: {self.series.flow:.2f} pixels a frame",
        ]

    def _joins(self) -> list[str]:
        if not self.sections.begins:
            return [f"joins: none ({self.sections.kind})"]
        worst = int(self.joins.argmax())
        seconds = self.sections.begins[worst] / self.fps
        return [
            f"joins: {float(self.joins.mean()):.2f} times the usual change, at most {float(self.joins[worst]):.2f} at "
            f"{seconds:.2f} s ({len(self.joins)} of {self.sections.kind})",
            f"a section's first {FIRST} frames, relative to its others: {self.beginning('contrast'):.1%} of the contrast, "
            f"{self.beginning('laplacian'):.1%} of the sharpness",
        ]
