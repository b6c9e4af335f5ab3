"""Reading media at scale: replaceable processes that decode, and a cache of frames on disk."""
