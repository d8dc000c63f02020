"""The first 300 hazy streets of training: what CBST's rounds label and train on."""

from t2sda.data.catalog import DrawnStreetsSpec, register_dataset

register_dataset(DrawnStreetsSpec("streets_hazy_few", "hazy", 1, num_images=300))
