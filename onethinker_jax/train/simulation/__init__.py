"""A step at given lengths, without running a model: packed by the real packer, decoded by the real scheduler."""
