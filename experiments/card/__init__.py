"""A graphics card that is not there, to try the pack on cards of any size without owning one.

Tensors are torch's fake ones: they have a shape, a dtype and a device, but no data, so that the released models run through
every line of ours and of ComfyUI's in seconds. Each operation that runs on the card (`operations`) is held to a card's rules
(`rules`), its bytes are counted and limited (`memory`), and waits of the computer for the card are counted (`waits`). `card`
puts all this under ComfyUI, and `models` builds the released models on it. Kernels, numerics, streams and ComfyUI's dynamic
VRAM are not covered.
"""
