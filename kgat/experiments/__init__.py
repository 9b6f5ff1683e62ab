r"""Training, comparing and drawing: what the command line runs. Layers need none of it."""
