"""Files that are looked at: videos and pictures."""
