"""The X-ray: what a CUDA kernel does, line by line, with no GPU."""
