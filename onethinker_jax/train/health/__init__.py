"""What a run watches of itself: steps that do not end, updates that are not finite, curves, memory, disk."""
