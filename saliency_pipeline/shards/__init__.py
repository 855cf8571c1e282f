"""The paired image and saliency HDF5 format: schema, writer, reader, verification."""
