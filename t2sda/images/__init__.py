"""The one reader of images and labels: training, evaluation and inference see the same arrays.

Needs numpy, Pillow and OpenCV; simplejpeg and imagecodecs make it faster where they are installed,
and change no pixel (simplejpeg also refuses damaged JPEGs that libjpeg only warns of). What becomes
of a file:

| in the file | in the array |
| --- | --- |
| EXIF orientation | applied, to images and labels alike; damaged EXIF counts as none |
| transparency | dropped: the colors are those that the file stores |
| grey | repeated in three channels |
| palette, CMYK, YCbCr | RGB, as Pillow converts them; of a label the palette's indices |
| 16-bit integers | the upper 8 bits |
| 32-bit integers | refused: nothing says which value is white |
| floating point | 0 is black, 1 is white; other values and NaN are refused |
| several frames or pages | the first |
| color profiles, gamma, text | ignored |
"""

from t2sda.images.anything import ImageSource, as_image, check_image, is_one_image
from t2sda.images.reader import (
    Header,
    read_header,
    read_image,
    read_label,
    read_samples,
)

__all__ = [
    "Header",
    "ImageSource",
    "as_image",
    "check_image",
    "is_one_image",
    "read_header",
    "read_image",
    "read_label",
    "read_samples",
]
