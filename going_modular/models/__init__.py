"""What a network is made of, where its pretrained weights come from, how it is saved."""
