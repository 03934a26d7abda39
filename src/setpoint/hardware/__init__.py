"""Which hardware there is, what a model asks of it, and how long a step takes there."""
