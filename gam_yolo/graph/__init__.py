"""A model YAML as a graph: read it, place and remove blocks, check it, draw it, map one graph's rows to another's."""
