"""Where labeled images come from: catalogues of records, and the decoding of one record to one frame."""
