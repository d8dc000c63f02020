"""A model behind HTTP: what `t2sda serve` runs."""
