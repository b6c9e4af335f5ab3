"""Times, boxes, tracks and masks: a layout's reader a file."""
