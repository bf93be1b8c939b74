"""From files to labelled images: one image, a set of them, folders and their splits, downloads."""
