"""
Graded exercises: short kernels with one fault each, or with nothing in them yet.

Each exercise is a row of a chapter (`first_steps`, `shared_memory`, `layers`: what the kernel is
given, what NumPy makes of it, what may be counted) and a folder of that name: ``task.md``,
``hints.md``, ``start.cu`` and ``solution.cu``, the same in Numba where that teaches something. The
grader needs no GPU: CUDA C runs under the X-ray, Numba on its simulator with watched arrays.
"""
