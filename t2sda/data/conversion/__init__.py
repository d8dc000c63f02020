"""Annotations of other tools, turned into label files and a dataset's YAML file."""
