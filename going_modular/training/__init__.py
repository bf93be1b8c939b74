"""What `engine` stands on: cutting a model, several processes, resuming, run folders."""
