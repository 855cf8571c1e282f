"""Images: records and catalogues, their keys, and the decoding of one image to one frame."""
