"""Files that people watch: videos and pictures."""
