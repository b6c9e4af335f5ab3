"""Questions and captions, of pictures and of videos: a layout's reader a file."""
