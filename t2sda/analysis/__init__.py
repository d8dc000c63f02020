"""What the features of a trained network say: distances, similarity, pseudo-labels, curves."""
