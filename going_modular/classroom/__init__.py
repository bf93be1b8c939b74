"""What a class needs around the notebooks."""
