"""What a video looks like from frame to frame, without any downloaded model: drift, motion and joins."""
