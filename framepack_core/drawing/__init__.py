"""The plan as a picture: `chart` says what is in it, `painting` where it goes, `marks` how each thing looks."""
