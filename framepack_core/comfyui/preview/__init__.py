"""What a node shows while a video is made."""
