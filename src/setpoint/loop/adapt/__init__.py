"""The loop online: what traffic is like, whether it has changed, what would serve it better, and whether it did."""
