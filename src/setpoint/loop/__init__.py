"""The loop: plan -> serve -> measure -> choose."""
