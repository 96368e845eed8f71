"""All that touches Ultralytics: one module a patch, each wrapping what is there and copying nothing of it."""
