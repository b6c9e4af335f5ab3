"""What a run writes down while it goes on: console, TensorBoard, Weights & Biases, progress, compilations."""
