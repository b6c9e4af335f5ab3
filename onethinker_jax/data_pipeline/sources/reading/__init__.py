"""Files of data sets: their rows, cells and names."""
