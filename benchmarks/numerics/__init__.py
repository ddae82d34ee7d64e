"""What the model's parts cost beside what people use for the same today."""
