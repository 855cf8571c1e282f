"""ImageNet and the data sets made from it, in each shape in which they are distributed."""
