"""The X-ray: what a CUDA kernel does, and what the compiler made of it, with no GPU."""
