"""Hazy streets that settings may be chosen on: of scenes that nothing is trained or reported on."""

from t2sda.data.catalog import DrawnStreetsSpec, register_dataset

register_dataset(DrawnStreetsSpec("streets_hazy_dev", "hazy", 3, num_images=50))
