"""A comparison from checkpoints or predictions to one folder that holds a page, tables and data."""
