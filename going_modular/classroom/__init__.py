"""What a teacher needs around the notebooks: each module is a command of its own."""
