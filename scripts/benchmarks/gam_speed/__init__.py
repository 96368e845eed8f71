"""The parts of `benchmark_gam.py`, one a file."""
