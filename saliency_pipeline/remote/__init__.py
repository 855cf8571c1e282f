"""Remote images, which are read and never written: listings and byte ranges of object storage, web servers, the Hub."""
