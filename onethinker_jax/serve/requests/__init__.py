"""A request on its way to a prompt: its fields, the media that it names, the prompt that it becomes."""
