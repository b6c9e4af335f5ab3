"""Media files: images, animations and videos decoded to pixels, at exact times and bounded sizes."""
