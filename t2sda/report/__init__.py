"""One self-contained HTML page about runs: settings, curves, scores, differences, images."""
