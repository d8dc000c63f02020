"""From the adapted student to files that run elsewhere; imported as `t2sda.export`."""
