"""Ways to keep a training near the frozen CLIP, a file each (``train.regularizers``)."""
