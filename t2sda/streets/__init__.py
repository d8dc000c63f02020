"""Two domains of drawn street scenes with exact labels of all 19 Cityscapes classes."""

from t2sda.streets.draw import DOMAINS, draw_street

__all__ = ["DOMAINS", "draw_street"]
