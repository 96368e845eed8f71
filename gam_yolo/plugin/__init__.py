"""Everything that patches Ultralytics: one module per patched name. Each wraps the original and copies nothing."""
