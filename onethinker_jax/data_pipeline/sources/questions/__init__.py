"""Questions and captions, of pictures and of videos: readers of layouts."""
