"""What a section of a plan sees, in forms that tests compare."""

from framepack_core.filling import Section


def groups(section: Section) -> list[tuple]:
    return [(group.kernel, group.frames, group.indices) for group in section.context]


def seen(section: Section) -> list[tuple[int, int]]:
    """(frame, its time index) of every context frame that exists."""
    pairs = [pair for group in section.context for pair in zip(group.frames, group.indices, strict=True)]
    return [(frame, index) for frame, index in pairs if frame is not None]
