"""What a trained network is worth and what it says of new images: scores, figures, predictions, export."""
