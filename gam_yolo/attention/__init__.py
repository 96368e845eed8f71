"""What the attention blocks of a trained model do: their gates on images, heat maps, and what each block is worth."""
