"""The Photos world: scenes composed from real photographs, cut-outs, clips and maps, with exact answers."""
