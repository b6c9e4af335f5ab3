"""Times, boxes, tracks and masks: readers of layouts."""
