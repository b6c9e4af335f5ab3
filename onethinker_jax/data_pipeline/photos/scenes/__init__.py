"""Scenes of the Photos world: what they are, what they are made of, and how they are drawn by lot."""
