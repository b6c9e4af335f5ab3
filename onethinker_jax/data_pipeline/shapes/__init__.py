"""The Shapes world: scenes of coloured shapes, and questions of every task with exact answers."""
