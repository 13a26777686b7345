"""What Helios is sampled with: its own solvers and, as the nodes offer it, ComfyUI's Euler."""

from functools import partial

from comfy.k_diffusion.sampling import sample_euler

from framepack_core.helios import solver

SAMPLERS: dict[str, solver.Sampler] = {**solver.SAMPLERS, "euler": partial(sample_euler, disable=True)}
