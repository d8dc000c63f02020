"""Our steps against figures that the public training code of others recorded.

`records/` holds numbers that the unchanged code of DAFormer, HRDA and MIC computed in float64 on
weights and inputs which `recipe.py` makes from names and seeds: losses, gradient norms, learning
rates, probes of the parameters, and what was drawn (classes that ClassMix pastes, blocks that are
hidden, detail crops). No tensor and no code of theirs is here.
"""
