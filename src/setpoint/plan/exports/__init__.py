"""A plan as something to run: server commands, a serve configuration, a Kubernetes manifest, a Ray Serve configuration."""
