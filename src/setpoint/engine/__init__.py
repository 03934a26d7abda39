"""The embedded engine: sequences, paged KV blocks, batch assembly, the step loop, and executors."""
