"""The parts of `benchmark_gam.py`, one per file."""
