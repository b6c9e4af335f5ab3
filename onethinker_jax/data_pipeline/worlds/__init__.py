"""What worlds have in common: a world draws scenes whose truth is known, asks about them, and writes records.

`stage` says what a scene and its actors are, `question` what is asked about it, `world` and `building` how a data set
comes of both. Shapes and Photos are worlds.
"""
