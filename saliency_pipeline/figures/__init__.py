"""The kit by which every figure is plotted, every picture is encoded and every page is framed."""
