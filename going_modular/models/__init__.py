"""What a network is made of, where its pretrained weights come from, and the file it is saved in."""
