"""Faster R-CNN trained with the average-precision loss, on Pascal VOC and data in its layout."""
